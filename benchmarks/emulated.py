"""Eight devices that take 20 ms for a forward and 40 ms for a backward, each a process that sleeps.

PyTorch's schedules run on the same devices with every number of micro-batches that may suit them; a micro-batch sleeps
for its share of the batch.
"""

from collections.abc import Callable
from functools import partial

from benchmarks.measure import Row, best, ratio, together
from benchmarks.peers.start import started, under_torchrun
from benchmarks.runs import seconds_per_update
from benchmarks.workloads import BACKWARD, FORWARD, STAGES, WORKLOADS

UPDATES, PEER_UPDATES = 120, 10
MICRO_BATCHES = (4, 8, 16, 32)
GOALS = (1.05, 1.03)
"""Over the ideal, with once and twice K-1-k batches under way."""

IDEAL, ALONE, BEST = "ideal, s/batch", "a device alone, plain PyTorch loop, s/batch", "best torch, s/batch"


def run(turns: int) -> Row:
    """Measure the time per batch at one and two times the least staleness that keeps all stages busy."""
    parts: dict[str, Callable[[], dict[str, float]]] = {
        "stalegrid": _stalegrid,
        "alone": _alone,
        "torch, a part a device": partial(_torch, "sleepers", ("GPipe", "1F1B"), 1),
        "torch, two": partial(_torch, "half-sleepers", ("Interleaved1F1B",), 2),
    }
    figures = together(parts, turns)
    ours = [name for name in figures if name.startswith("m =")]
    theirs = [name for name in figures if name.startswith("torch")]
    figures[IDEAL] = [FORWARD + BACKWARD] * turns
    figures[BEST] = best(figures, theirs, min)
    return Row(
        figures,
        [
            *(ratio(figures, name, IDEAL, at_most=goal) for name, goal in zip(ours, GOALS, strict=True)),
            *(ratio(figures, BEST, name, at_least=2.0) for name in ours),
            ratio(figures, ALONE, IDEAL),
        ],
    )


def _stalegrid() -> dict[str, float]:
    return {f"m = {c} (K-1-k), s/batch": _batch(c) for c in (1, 2)}


def _alone() -> dict[str, float]:
    return {ALONE: started("loop", "sleeper", WORKLOADS["sleeper"].batch, UPDATES // 2)["seconds"]}


def _batch(c: int) -> float:
    return seconds_per_update(
        "sleepers",
        UPDATES,
        groups=1,
        stages=STAGES,
        staleness=[c * (STAGES - 1 - k) for k in range(STAGES)],
        cuts=[str(k) for k in range(1, STAGES)],
    )


def _torch(workload: str, schedules: tuple[str, ...], parts: int) -> dict[str, float]:
    cuts = ",".join(map(str, range(1, parts * STAGES)))
    # Only GPipe takes fewer micro-batches than there are devices.
    wanted = [f"{s}:{m}" for s in schedules for m in MICRO_BATCHES if s == "GPipe" or m >= STAGES]
    batch = WORKLOADS[workload].batch
    found = under_torchrun("pipelining", STAGES, workload, batch, PEER_UPDATES, cuts, *wanted)
    return {f"torch {name.replace(':', ' M=')}, s/batch": seconds for name, seconds in found.items()}
