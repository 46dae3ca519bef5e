"""What is wanted of a run beside what is planned: that it is saved as time has passed, or that it leaves.

Does not know: who is told, at which version it happens.
"""

import time
from collections.abc import Callable

from stalegrid.programs import LEAVE, SAVE


class Asks:
    """What the observer's process adds to its verdicts.

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

    def code(self, version: int) -> int:
        """Return what the verdict of a version says beside what callbacks asked for."""
        if self._leaving():
            return SAVE | LEAVE
        if self._minutes is None or self._now() - self._last < 60 * self._minutes:
            return 0
        self._last = self._now()
        return SAVE
