"""Items that take long to read, read ahead, against the same data in memory.

Two stages, each a process that sleeps for its part of a batch; an item sleeps for 5 ms when it is read, a batch of them
for more than twice as long as an update takes.  Whoever sleeps leaves the processors to others, as who waits for a disk
does.
"""

import time
from functools import partial
from typing import Any

from torch import Tensor
from torch.utils.data import Dataset

from benchmarks.measure import Row, interleave, ratio
from benchmarks.runs import seconds_per_update
from benchmarks.workloads import WORKLOADS
from stalegrid import ArrayDataset

ITEM = 0.005
"""Seconds that it takes to read one."""

UPDATES, UNAIDED = 120, 30
WORKERS = 6
"""Of each process: three could read as fast as updates are made, if nothing else took time."""

MEMORY, AHEAD, NONE = "in memory, samples/s", f"5 ms an item, {WORKERS} workers, samples/s", "no workers, samples/s"


class Slow(Dataset[tuple[Tensor, Tensor]]):
    """Samples that take time to read.

    Args:
        samples: in memory.
    """

    def __init__(self, samples: ArrayDataset) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        time.sleep(ITEM)
        return self.samples[index]


def run(turns: int) -> Row:
    """Measure samples a second."""
    competitors = {
        MEMORY: partial(_rate, UPDATES),
        AHEAD: partial(_rate, UPDATES, read=Slow, workers=WORKERS),
        NONE: partial(_rate, UNAIDED, read=Slow),
    }
    figures = interleave(competitors, turns)
    return Row(figures, [ratio(figures, AHEAD, MEMORY, at_least=0.95), ratio(figures, NONE, MEMORY)])


def _rate(updates: int, **options: Any) -> float:
    settings = {"groups": 1, "stages": 2, "staleness": [2, 0], "cuts": ["1"], **options}
    return WORKLOADS["two-sleepers"].batch / seconds_per_update("two-sleepers", updates, **settings)
