"""ResNet-20 on CIFAR shapes in two processes of one thread: this library and PyTorch's own 1F1B."""

import subprocess
import sys
from functools import partial

from bench.measure import Ratio, interleave, ratio
from bench.runs import images, seconds_per_update
from stalegrid.models import resnet
from stalegrid.partition import partition

BATCH, UPDATES = 128, 25
MICRO_BATCHES = (2, 4)


def run(turns: int) -> list[Ratio]:
    """Measure samples a second of a pipeline of two stages, each side with the micro-batches that suit it best."""
    data = images(BATCH * 4)
    cut = partition(resnet(20), (data.inputs[:BATCH],), 2).names[0]
    block = _module_boundary(cut)
    alone = "one process of one thread, samples/s"
    ours = {f"stalegrid K=2 M={m}, samples/s": partial(_stalegrid, cut, m) for m in (1, *MICRO_BATCHES[-1:])}
    theirs = {f"torch 1F1B M={m}, samples/s": partial(_torch, block, m) for m in MICRO_BATCHES}
    figures = interleave({**ours, **theirs, alone: _alone}, turns)
    best, peer = "best stalegrid K=2, samples/s", "best torch 1F1B, samples/s"
    figures[best] = [max(figures[name][i] for name in ours) for i in range(turns)]
    figures[peer] = [max(figures[name][i] for name in theirs) for i in range(turns)]
    return [
        ratio("cpu", figures, best, peer, 1.25, float("inf")),
        ratio("cpu", figures, next(iter(ours)), peer, 0, float("inf")),
        ratio("cpu", figures, best, alone, 0, float("inf")),
    ]


def _module_boundary(cut: str) -> int:
    """Return the child of the model nearest to the automatic cut: PyTorch's pipeline is cut between children."""
    return int(cut.split(".")[0]) if cut[0].isdigit() else 6


def _stalegrid(cut: str, micro_batches: int) -> float:
    seconds = seconds_per_update(
        resnet(20),
        images(BATCH * 4),
        UPDATES,
        groups=1,
        stages=2,
        cuts=[cut],
        micro_batches=micro_batches,
        batch_size=BATCH,
    )
    return BATCH / seconds


def _alone() -> float:
    seconds = seconds_per_update(
        resnet(20), images(BATCH * 4), UPDATES, method="sgd", engine="simulator", batch_size=BATCH
    )
    return BATCH / seconds


def _torch(block: int, micro_batches: int) -> float:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m"]
    command += ["bench.peers.torch_1f1b", str(block), str(micro_batches), str(BATCH), str(UPDATES)]
    made = subprocess.run(command, capture_output=True, text=True, check=True)
    return float(made.stdout.split()[-1])
