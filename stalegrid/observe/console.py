"""A run on the console: what is said of reports and evaluations.

Does not know: agents, engines, files, what kind of console it is.
"""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress

from torch import Tensor, nn

from stalegrid.errors import OutputError
from stalegrid.objects import State
from stalegrid.observe.diagnosed import line_of
from stalegrid.observe.displays import Display
from stalegrid.observe.divergence import JS_DISTANCE
from stalegrid.observe.metrics import PREFIX
from stalegrid.observe.numbers import TOLD, over_units
from stalegrid.observe.rate import Rate
from stalegrid.observe.records import BYTES_SENT, TOTAL, VIRTUAL, Record
from stalegrid.observe.stream import make_console
from stalegrid.programs import Unit

_SHOWN = ("test_loss", "test_accuracy")


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
        display: where.
        groups: whether there are several, which may be apart.
    """

    def __init__(self, display: Display, groups: bool = True) -> None:
        self._display = display
        self._groups = groups
        self._rate = Rate(time.perf_counter())
        self._test = ""

    def report(self, record: Record) -> None:
        """Show a report."""
        for number in record.get("lost", ()):
            self._display.say(f"learner {number} is gone")
        rate = self._rate.after(record["samples"], time.perf_counter())
        self._display.show(record["update"], self._describe(record, rate))

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
        apart = record.get(JS_DISTANCE)
        parts += [f"Jensen-Shannon distance {apart:.3g}"] if apart is not None else []
        sent = record.get(BYTES_SENT, {}).get(TOTAL)
        parts += [f"sent {sent / 1e6:.4g} MB"] if sent else []
        self._display.say("  ".join(parts))

    def diagnosis(self, record: Record) -> None:
        """Show a diagnosis on a line that stays."""
        self._display.say(line_of(record))

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
        """End the display."""
        self._display.close()

    def _describe(self, record: Record, rate: float) -> str:
        accuracy = "" if record["train_accuracy"] is None else f" accuracy {record['train_accuracy']:.1%}"
        oldest = max(seen["max"] for seen in record["staleness"].values())
        gaps = [seen["gap"] for seen in record["staleness"].values() if seen["gap"] is not None]
        stale = f" staleness <= {oldest}" + (f" gap {max(gaps):.3g}" if gaps else "")
        told = "".join(f" {name} {value:.3g}" for name, value in over_units(record.get(TOLD, {})).items())
        virtual = f" virtual {record[VIRTUAL]:.4g} s" if VIRTUAL in record else ""
        return f"{rate:.0f} samples/s{virtual} loss {record['loss']:.4f}{accuracy}{self._test}{stale}{told}"
