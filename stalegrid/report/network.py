"""What units have sent each other, by kind of message.

Does not know: who sent it to whom, and how long that took.
"""

from collections.abc import Iterator

from stalegrid.observe import BYTES_SENT, TOTAL
from stalegrid.report.figures import Curve, curves
from stalegrid.report.page import figures, section, table
from stalegrid.report.told import Told

_NOTE = (
    "What units have sent each other, by kind of message: its content, without what a network wraps it in, and without "
    "what goes to the observer."
)


def network_section(run: Told) -> str:
    """Return the part of a page."""
    return section("Network", [*figures(_sent(run)), *_table(run)], _NOTE)


def _sent(run: Told) -> Iterator[tuple[str, str]]:
    """Yield how many megabytes of which kind had been sent when."""
    lines = _lines(run)
    if lines:
        title = "Megabytes sent over epochs"
        yield title, curves(title, [Curve(name, points) for name, points in lines.items()], "epochs", "MB")


def _lines(run: Told) -> dict[str, list[tuple[float, float]]]:
    lines: dict[str, list[tuple[float, float]]] = {}
    for record in run.train:
        for name, nbytes in (record.get(BYTES_SENT) or {}).items():
            lines.setdefault(name, []).append((record["epoch"], nbytes / 1e6))
    if len(lines) == 2:
        del lines[TOTAL]  # of one kind, which it is
    return lines if any(nbytes for points in lines.values() for _, nbytes in points) else {}


def _table(run: Told) -> list[str]:
    sent = {} if not run.train else run.train[-1].get(BYTES_SENT) or {}
    if not sent.get(TOTAL):
        return []
    rows = [(name, f"{nbytes:,}", f"{nbytes / run.train[-1]['update']:,.1f}") for name, nbytes in sent.items()]
    return [table(("messages", "bytes", "bytes an update"), rows, numbers=True)]
