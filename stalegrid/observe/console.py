"""A run on the console: a live display on a terminal, plain lines elsewhere.

Does not know: agents, engines, files.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from stalegrid.errors import OutputError
from stalegrid.observe.metrics import PREFIX
from stalegrid.observe.rate import Rate
from stalegrid.observe.records import VIRTUAL, Record
from stalegrid.observe.stream import make_console
from stalegrid.programs import Unit
from stalegrid.written import State

_SHOWN = ("test_loss", "test_accuracy")

LINE_EVERY = 2.0
"""Seconds between plain lines, at least."""


@contextmanager
def cursor_kept() -> Iterator[None]:
    """Show the terminal's cursor again, whichever process hid it and however that ended."""
    try:
        yield
    finally:
        with suppress(OutputError):
            make_console().show_cursor()


class ConsoleSink:
    """Shows rate, loss, accuracy, staleness and time left.

    Args:
        updates: N.
        console: where to; a terminal gets the live display.
        groups: whether there are several, which may be apart.
    """

    def __init__(self, updates: int, console: Console, groups: bool = True) -> None:
        self._updates = updates
        self._console = console
        self._groups = groups
        self._start = time.perf_counter()
        self._rate = Rate(self._start)
        self._shown = float("-inf")
        self._test = ""
        columns = (
            BarColumn(20),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        self._progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self._task = self._progress.add_task("waiting for the first report", total=updates)
        self._progress.start()

    def report(self, record: Record) -> None:
        """Show a report."""
        for number in record.get("lost", ()):
            self._say(f"learner {number} is gone")
        now = time.perf_counter()
        line = self._describe(record, self._rate.after(record["samples"], now))
        self._progress.update(self._task, completed=record["update"], description=line)
        last = record["update"] == self._updates
        if not self._console.is_terminal and (last or now - self._shown >= LINE_EVERY):
            self._shown = now
            # A guess from the whole run so far, loading included; too long at first, soon right.
            left = (now - self._start) * (self._updates / record["update"] - 1)
            self._console.print(f"update {record['update']}/{self._updates} {line} left {left:.0f} s", soft_wrap=True)

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Show an evaluation on a line that stays."""
        accuracy, loss = record.get("test_accuracy"), record.get("test_loss")
        self._test = "" if accuracy is None else f" test {accuracy:.2%}"
        parts = [f"epoch {record['epoch']:.4g}", f"version {record['version']}"]
        parts += [f"test accuracy {accuracy:.2%}"] if accuracy is not None else []
        parts += [f"test loss {loss:.4f}"] if loss is not None else []
        measured = {name: value for name, value in record.items() if name.startswith(PREFIX) and name not in _SHOWN}
        parts += [f"{name.replace('_', ' ', 1)} {value:.4g}" for name, value in measured.items() if value is not None]
        parts += [f"consensus distance {record['consensus_distance']:.3g}"] if self._groups else []
        self._say("  ".join(parts))

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Show nothing."""

    def stops(self) -> bool:
        """Return that nobody asks for the end."""
        return False

    def state_dict(self) -> State:
        """Return that there is nothing to know."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """End the live display, and leave the terminal to others."""
        self._progress.stop()

    def _say(self, line: str) -> None:
        """Print a line that stays, above the live display."""
        self._progress.console.print(line, highlight=False, soft_wrap=True)

    def _describe(self, record: Record, rate: float) -> str:
        accuracy = "" if record["train_accuracy"] is None else f" accuracy {record['train_accuracy']:.1%}"
        oldest = max(seen["max"] for seen in record["staleness"].values())
        gaps = [seen["gap"] for seen in record["staleness"].values() if seen["gap"] is not None]
        stale = f" staleness <= {oldest}" + (f" gap {max(gaps):.3g}" if gaps else "")
        virtual = f" virtual {record[VIRTUAL]:.4g} s" if VIRTUAL in record else ""
        return f"{rate:.0f} samples/s{virtual} loss {record['loss']:.4f}{accuracy}{self._test}{stale}"
