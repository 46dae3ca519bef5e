"""How long somebody else's function may take.

Does not know: what it does.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def within(seconds: float | None) -> Iterator[None]:
    """End what takes too long in an error, wherever Python is at then.

    For the main thread of a process that is there for nothing else, as a process has one alarm alone.  A call into a
    library that neither returns nor lets signals in goes on.

    Args:
        seconds: that it may take; None for as many as it likes.

    Raises:
        TimeoutError: it took longer.
    """
    if seconds is None:
        yield
        return

    def end(number: int, frame: FrameType | None) -> None:
        raise TimeoutError(f"it took longer than {seconds:g} s; if it is so slow, raise the deadline")

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
