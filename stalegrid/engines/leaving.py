"""What is wanted of a run beside what is planned: that it is saved as time has passed, or that it leaves.

Does not know: who is told, at which version it happens.
"""

import time
from collections.abc import Callable

from stalegrid.programs import LEAVE, SAVE

LOOK = 0.25
"""Seconds, about, from one look to the next where updates take less."""

MOST = 64
"""Updates from one look to the next at most, should they take longer from now on."""


class Cadence:
    """How often it is looked whether something is wanted: seldom where updates are short, else as often as can be.

    Args:
        now: reads a clock, in seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._last: tuple[int, float] | None = None  # version, time

    def after(self, version: int) -> int:
        """Return after how many updates the next look comes, given the version of this one."""
        before, self._last = self._last, (version, self._now())
        if before is None:
            return 1
        seconds = (self._last[1] - before[1]) / (version - before[0])
        return MOST if seconds * MOST < LOOK else max(1, round(LOOK / seconds))


class Asks:
    """What is wanted of a run, as the process knows that is asked.

    Args:
        minutes: from one checkpoint to the next; None for those that are planned alone.
        leaving: whether somebody wants the run to leave.
        now: reads a clock, in seconds.
    """

    def __init__(
        self, minutes: float | None, leaving: Callable[[], bool], now: Callable[[], float] = time.monotonic
    ) -> None:
        self._minutes = minutes
        self._leaving = leaving
        self._now = now
        self._last = now()

    def code(self, *, ready: bool = True) -> int:
        """Return what is wanted now.

        Args:
            ready: whether what was wanted last is done, without which a run leaves but is not saved again.
        """
        if self._leaving():
            return SAVE | LEAVE
        if self._minutes is None or not ready or self._now() - self._last < 60 * self._minutes:
            return 0
        self._last = self._now()
        return SAVE
