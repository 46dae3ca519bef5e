"""Eight devices that take 20 ms for a forward and 40 ms for a backward, each a process that sleeps."""

from functools import partial

import torch

from bench.measure import Ratio, interleave, ratio
from bench.runs import seconds_per_update
from bench.sleeping import sleepers
from stalegrid import ArrayDataset

STAGES, FORWARD, BACKWARD = 8, 0.020, 0.040
UPDATES = 120


def run(turns: int) -> list[Ratio]:
    """Measure the time per batch at one and two times the least staleness that keeps all stages busy."""
    figures = interleave({f"m = {c} (K-1-k), s/batch": partial(_batch, c) for c in (1, 2)}, turns)
    figures["ideal, s/batch"] = [FORWARD + BACKWARD] * turns
    slack = ratio("emulated", figures, "m = 2 (K-1-k), s/batch", "ideal, s/batch", 0, 1.05)
    least = ratio("emulated", figures, "m = 1 (K-1-k), s/batch", "ideal, s/batch", 0, float("inf"))
    return [slack, least]


def _batch(c: int) -> float:
    data = ArrayDataset(torch.randn(64, 16), torch.zeros(64, dtype=torch.int64), 16)
    return seconds_per_update(
        sleepers(STAGES, FORWARD, BACKWARD),
        data,
        UPDATES,
        groups=1,
        stages=STAGES,
        staleness=[c * (STAGES - 1 - k) for k in range(STAGES)],
        cuts=[str(k) for k in range(1, STAGES)],
        batch_size=4,
    )
