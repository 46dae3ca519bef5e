"""How much staleness is enough: the least whose throughput is about as good as any.

Does not know: models, methods, who asks.
"""

import math
from collections.abc import Callable
from functools import partial

LONGEST = 8
"""Multiples of K-1-k beyond which no more staleness is tried."""

STEPS = 4
"""Steps in which such a multiple is tried."""

Speed = Callable[[list[int]], float]
"""Milliseconds a batch at a staleness vector."""


def scaled(stages: int, factor: float) -> list[int]:
    """Return ``m_k = ceil(c (K-1-k))``."""
    return [math.ceil(factor * (stages - 1 - k)) for k in range(stages)]


def least_staleness(stages: int, speed: Speed, within: float) -> list[int]:
    """Return the least staleness whose time per batch is within a share of the best.

    First the least multiple of K-1-k; then each stage in turn, from the first, which is the stalest, gives back what it
    does not need, until none does.  Where more staleness is slower, which happens on links of little bandwidth, what is
    found is fast enough but may not be the least.

    Args:
        stages: K.
        speed: milliseconds a batch at a staleness vector that never increases along the stages.
        within: share of the best throughput that may be missed.
    """
    # Sweeps come back to vectors that were tried, and each trial is a run in virtual time.
    speed = _remembered(speed)
    limit = speed(scaled(stages, LONGEST)) / (1.0 - within)

    def multiple(steps: int) -> list[int]:
        return scaled(stages, steps / STEPS)

    best = multiple(_least(0, LONGEST * STEPS, lambda steps: speed(multiple(steps)) <= limit))
    before_sweep: list[int] = []
    while best != before_sweep:
        before_sweep = best
        for k in range(stages):
            before, after = best[:k], best[k + 1 :]
            # Staleness never increases along the stages, or the program would deadlock.
            low = after[0] if after else 0
            best = [*before, _least(low, best[k], partial(_enough, speed, limit, before, after)), *after]
    return best


def _remembered(speed: Speed) -> Speed:
    known: dict[tuple[int, ...], float] = {}

    def remembered(staleness: list[int]) -> float:
        key = tuple(staleness)
        if key not in known:
            known[key] = speed(staleness)
        return known[key]

    return remembered


def _enough(speed: Speed, limit: float, before: list[int], after: list[int], staleness: int) -> bool:
    return speed([*before, staleness, *after]) <= limit


def _least(low: int, high: int, good: Callable[[int], bool]) -> int:
    """Return the least number from which on all are good, where the highest is."""
    while low < high:
        middle = (low + high) // 2
        if good(middle):
            high = middle
        else:
            low = middle + 1
    return high
