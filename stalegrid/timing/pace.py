"""What each action of a unit takes on its device.

Does not know: messages, other units, whether time is virtual or slept.
"""

from collections.abc import Iterator
from itertools import islice

from stalegrid.programs import Kind, Unit
from stalegrid.timing.costs import NANOSECONDS, Cost
from stalegrid.timing.disturbances import Disturbances


def durations(cost: Cost, micro_batches: int) -> dict[Kind, int]:
    """Return the nanoseconds of every kind of action that takes time, on an undisturbed device.

    Args:
        cost: of the stage, for the batch of an update.
        micro_batches: M, of which each takes 1/M of that, but for what is fixed.
    """

    def each(whole: float) -> float:
        fixed = min(cost.fixed, whole)
        return fixed + (whole - fixed) / micro_batches

    milliseconds = {
        Kind.FORWARD: each(cost.forward),
        Kind.RECOMPUTE: each(cost.second_forward),
        Kind.BACKWARD: each(cost.backward),
        Kind.UPDATE: cost.update,
        Kind.REDUCE: cost.mix,
        Kind.MIX: cost.mix,
    }
    return {kind: round(ms * NANOSECONDS) for kind, ms in milliseconds.items() if ms}


class Pace:
    """What each action of a unit takes, in the order of its program.

    Args:
        unit: which.
        durations: nanoseconds by kind, undisturbed; actions of other kinds take none.
        disturbances: of the run.

    Attributes:
        drawn: actions of the unit so far for which something was drawn.
    """

    def __init__(self, unit: Unit, durations: dict[Kind, int], disturbances: Disturbances) -> None:
        self._durations = durations
        self._slow = disturbances.slow.get(unit, 1.0)
        self._draws: Iterator[tuple[float, int]] | None = None
        if disturbances.jitter:
            self._draws = disturbances.jitter.draws(disturbances.seed, unit)
        self.drawn = 0

    def skip(self, drawn: int) -> None:
        """Go on as after so many draws; none were made here."""
        self.drawn = drawn
        if self._draws is not None:
            self._draws = islice(self._draws, drawn, None)

    def of(self, kind: Kind) -> int:
        """Return the nanoseconds of the next action."""
        usual = self._durations.get(kind)
        return 0 if usual is None else self.stretched(usual)

    def stretched(self, usual: int) -> int:
        """Return what the next action takes on this device, if it usually takes so many nanoseconds."""
        if not usual:
            return 0
        if self._draws is None:
            return usual if self._slow == 1.0 else round(usual * self._slow)
        # A draw for each action that takes time, and no other: so emulated and virtual devices draw alike.
        factor, stall = next(self._draws)
        self.drawn += 1
        return round(usual * self._slow * factor) + stall
