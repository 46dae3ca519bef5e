"""How many samples a second a run takes, as whoever reports it says.

Does not know: clocks, who reports.
"""


class Rate:
    """Samples a second since the first report; before a second one, since the start.

    Args:
        start: of the clock, in seconds.
    """

    def __init__(self, start: float) -> None:
        self._since = start
        self._samples = 0
        self._first = True

    def after(self, samples: int, now: float) -> float:
        """Return the rate after so many more samples."""
        if self._first:
            # The time to the first report is that of loading libraries and waiting for others.
            rate = samples / (now - self._since)
            self._since, self._first = now, False
            return rate
        self._samples += samples
        return self._samples / (now - self._since)
