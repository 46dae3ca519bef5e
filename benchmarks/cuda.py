"""On a GPU, channels-last in bfloat16: the simulator against a plain loop, and processes that share the GPU."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from benchmarks.measure import Row, Skipped, interleave, ratio
from benchmarks.peers.start import started
from benchmarks.runs import seconds_per_update
from benchmarks.workloads import WORKLOADS

DEVICE = "cuda"
WORKLOAD, UPDATES = "half-resnet56", 60
CUTS = {2: ["13"], 4: ["8", "13", "18"]}
"""Children that begin the later stages."""

ALONE = "plain loop, s/update"


def run(turns: int) -> Row:
    """Measure the time of an update."""
    if not torch.cuda.is_available():
        raise Skipped("needs a GPU; PyTorch sees none here")
    figures = interleave(_competitors(), turns)
    return Row(figures, [ratio(figures, name, ALONE) for name in figures if name != ALONE])


def _competitors() -> dict[str, Callable[[], float]]:
    batch = WORKLOADS[WORKLOAD].batch
    each = {
        "simulator 1 x 4": partial(_stalegrid, engine="simulator", groups=1, stages=4, cuts=CUTS[4]),
        "K=2, two processes": partial(_stalegrid, groups=1, stages=2, cuts=CUTS[2]),
        "K=4, four processes": partial(_stalegrid, groups=1, stages=4, cuts=CUTS[4]),
        "S=2, two processes": partial(_stalegrid, groups=2, stages=1, batch_size=batch // 2),
    }
    return {ALONE: _loop, **{f"{name}, s/update": measure for name, measure in each.items()}}


def _loop() -> float:
    return started("loop", WORKLOAD, WORKLOADS[WORKLOAD].batch, UPDATES, DEVICE)["seconds"]


def _stalegrid(**settings: Any) -> float:
    return seconds_per_update(WORKLOAD, UPDATES, device=DEVICE, **settings)
