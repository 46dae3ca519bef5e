"""Signals that end this process: in order, so that processes it started end too and scratch files are removed.

Does not know: what is ended.
"""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGHUP)
"""Signals that end a process at once, as SIGINT does not."""


@contextmanager
def ending_in_order() -> Iterator[None]:
    """Let a terminated process, or one whose terminal has gone, leave its contexts for a while.

    Whoever handles or ignores a signal (as under nohup) keeps that.  Other threads than the main one cannot change it.
    """
    ours = [number for number in ENDING if signal.getsignal(number) is signal.SIG_DFL]
    if current_thread() is not main_thread():
        ours = []
    for number in ours:
        signal.signal(number, _leave)
    try:
        yield
    finally:
        for number in ours:
            signal.signal(number, signal.SIG_DFL)


def _leave(number: int, frame: FrameType | None) -> None:
    # As a shell reports a process that this signal has ended.
    sys.exit(128 + number)
