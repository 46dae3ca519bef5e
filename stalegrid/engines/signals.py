"""Signals that end this process: in order, so that processes it started end too and scratch files are removed.

Does not know: what is ended.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
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


SAME = 1.0
"""Seconds within which signals are one: a terminal and a launcher both hand on what a user sent once."""


@contextmanager
def leaving_in_order(
    say: Callable[[str], object], now: Callable[[], float] = time.monotonic
) -> Iterator[Callable[[], bool]]:
    """Let a signal ask a run to leave, and a later one end it at once; yield whether there was one.

    Args:
        say: takes what is told at the first.
        now: reads a clock, in seconds.
    """
    first: list[float] = []
    before = {int(number): signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    ours = [number for number, handler in before.items() if handler not in (signal.SIG_IGN, None)]
    if current_thread() is not main_thread():
        ours = []

    def ask(number: int, frame: FrameType | None) -> None:
        if not first:
            first.append(now())
            say(
                f"{signal.Signals(number).name}: the run saves its state at the next version that all units can agree "
                "on, and leaves; once more ends it at once"
            )
        elif now() - first[0] > SAME:
            signal.signal(number, before[number])
            signal.raise_signal(number)

    for number in ours:
        signal.signal(number, ask)
    try:
        yield lambda: bool(first)
    finally:
        for number in ours:
            signal.signal(number, before[number])


def _leave(number: int, frame: FrameType | None) -> None:
    # As a shell reports a process that this signal has ended.
    sys.exit(128 + number)
