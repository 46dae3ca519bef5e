"""How far a run is, as a console shows it: live on a terminal and in a notebook, in plain lines elsewhere.

Does not know: what is measured, agents, engines.
"""

import time
from typing import Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_EVERY = 2.0
"""Seconds between plain lines, at least."""

REWRITTEN_EVERY = 0.2
"""Seconds between two states of a line in a notebook, which keeps all that was ever written until it is shown."""


class Display(Protocol):
    """Shows how far a run is."""

    def show(self, done: int, line: str) -> None:
        """Show how many updates are done, and what is said of them, in the place of what was shown before."""

    def say(self, line: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """End, and leave the console to others."""


def in_notebook() -> bool:
    """Return whether what this process prints is read in a notebook."""
    return Console().is_jupyter


def display_of(console: Console, updates: int, notebook: bool) -> Display:
    """Return what shows a run of so many updates on a console, be it read in a notebook or not."""
    if console.is_terminal:
        return Bar(console, updates)
    return Rewritten(console, updates) if notebook else Lines(console, updates)


class Bar:
    """A bar at the foot of a terminal, below the lines that stay."""

    def __init__(self, console: Console, updates: int) -> None:
        columns = (
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._progress = Progress(*columns, console=console)
        self._task = self._progress.add_task("waiting for the first report", total=updates)
        self._progress.start()

    def show(self, done: int, line: str) -> None:
        """Show it beside the bar."""
        self._progress.update(self._task, completed=done, description=line)

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self._progress.console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the bar as it is."""
        self._progress.stop()


class Lines:
    """Plain lines, one now and then."""

    every = LINE_EVERY

    def __init__(self, console: Console, updates: int) -> None:
        self._console = console
        self._updates = updates
        self._start = time.perf_counter()
        self._shown = float("-inf")

    def show(self, done: int, line: str) -> None:
        """Print it, unless the last time was just now."""
        now = time.perf_counter()
        if done == self._updates or now - self._shown >= self.every:
            self._shown = now
            # A guess from the whole run so far, loading included; too long at first, soon right.
            left = (now - self._start) * (self._updates / done - 1)
            self._write(f"update {done}/{self._updates} {line} left {left:.0f} s")

    def say(self, line: str) -> None:
        """Print it."""
        self._console.print(line, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Do nothing."""

    def _write(self, line: str) -> None:
        self.say(line)


class Rewritten(Lines):
    """A line at the foot that is written over and over, below those that stay.

    By a carriage return alone, which all notebooks follow, from whichever process it comes; they know no other code
    that moves a cursor, and a display of their own can only be reached from the process that runs their cells.
    """

    every = REWRITTEN_EVERY

    def __init__(self, console: Console, updates: int) -> None:
        super().__init__(console, updates)
        self._line = ""

    def say(self, line: str) -> None:
        """Print a line above the one at the foot."""
        foot = self._line
        self._write(line)
        self._console.file.write("\n")
        self._line = ""
        self._write(foot)

    def close(self) -> None:
        """Leave the line as it is."""
        if self._line:
            self._console.file.write("\n")
            self._console.file.flush()

    def _write(self, line: str) -> None:
        # Characters of a longer line before it would stay.
        self._console.file.write(("\r" if self._line else "") + line.ljust(len(self._line)))
        self._console.file.flush()
        self._line = line
