"""Whether time grows with the grid: up to 32 devices that take 100 ms for a forward and 200 ms for a backward.

Each device is a process that sleeps.  They are so slow that what is really computed, by 32 processes on two cores,
takes a small part of their time; what a batch takes beyond the ideal is what the engine costs.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from benchmarks.measure import Row, ratio, together
from benchmarks.runs import seconds_per_update
from benchmarks.workloads import BACKWARD, FORWARD, LONGEST, SLOWER

UPDATES, EACH = 60, 5
"""Of a run at least, and for each stage: more than the two a stage by which the first one forwards ahead."""

IDEAL = "ideal, s/batch"
GOAL = 1.05
GRIDS = ((1, 2), (1, 4), (1, 8), (1, 16), (1, LONGEST), (4, 8))
"""Groups and stages; groups mix with both neighbours in a ring, every update."""


def run(turns: int) -> Row:
    """Measure the time per batch of every grid with slack."""
    names = {grid: f"{grid[0]} x {grid[1]}, s/batch" for grid in GRIDS}
    parts: dict[str, Callable[[], dict[str, float]]] = {
        name: partial(_batch, name, *grid) for grid, name in names.items()
    }
    figures = together(parts, turns)
    figures[IDEAL] = [SLOWER * (FORWARD + BACKWARD)] * turns
    return Row(figures, [ratio(figures, name, IDEAL, at_most=GOAL) for name in names.values()])


def _batch(name: str, groups: int, stages: int) -> dict[str, float]:
    mixing: dict[str, Any] = {"mixing": "combine-while-adapt", "topology": "ring"} if groups > 1 else {}
    seconds = seconds_per_update(
        f"slow-sleepers-{stages}",
        max(UPDATES, EACH * stages),
        groups=groups,
        stages=stages,
        staleness=[2 * (stages - 1 - k) for k in range(stages)],
        cuts=[str(k) for k in range(1, stages)],
        **mixing,
    )
    return {name: seconds}
