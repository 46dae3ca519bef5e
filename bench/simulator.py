"""What the simulator costs: one group of four stages against a plain PyTorch loop over the same samples."""

import time
from functools import partial

import torch
from torch import nn

from bench.measure import Ratio, interleave, ratio
from bench.runs import images, seconds_per_update
from stalegrid.data import Batches
from stalegrid.models import resnet

BATCH, UPDATES = 128, 20


def run(turns: int) -> list[Ratio]:
    """Measure the time per batch of both views."""
    loop = "plain loop, s/batch"
    views = {f"simulator S=1 K=4 {view}, s/batch": partial(_simulator, view) for view in ("stashed", "current")}
    figures = interleave({loop: _loop, **views}, turns)
    return [ratio("simulator", figures, name, loop, 0, 1.15) for name in views]


def _simulator(view: str) -> float:
    return seconds_per_update(
        resnet(20),
        images(BATCH * 4),
        UPDATES,
        groups=1,
        stages=4,
        cuts=["4", "6", "8"],
        view=view,
        engine="simulator",
        batch_size=BATCH,
    )


def _loop() -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    model, batches = resnet(20).train(), Batches(images(BATCH * 4), groups=1, batch_size=BATCH)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    loss, start, skipped = nn.CrossEntropyLoss(), 0.0, UPDATES // 5
    for n in range(UPDATES):
        if n == skipped:
            start = time.perf_counter()
        optimizer.zero_grad()
        loss(model(*batches.inputs(0, n)), batches.targets(0, n)).backward()
        optimizer.step()
    seconds = (time.perf_counter() - start) / (UPDATES - skipped)
    torch.set_num_threads(threads)
    return seconds
