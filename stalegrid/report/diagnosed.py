"""What was measured of the theory, version by version: each quantity as a line, and beside it what it is held against.

Does not know: folders, how anything was measured.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from stalegrid.observe import Record
from stalegrid.report.figures import Curve, curves
from stalegrid.report.page import figures, section
from stalegrid.report.told import Told

Read = Callable[[Record], Any]

_NOTE = (
    "What was measured of the theory, and what it is held against. The noise of a gradient is at most K sigma^2 / B on "
    "average. The bounds of the staleness error and the limits of the rate are of the curvature at one model, and "
    "estimates where the loss is no quadratic. The bound of the consensus distance is of the largest step among the "
    "versions that were diagnosed."
)


def diagnosed_section(run: Told) -> str:
    """Return the part of a page; nothing where nothing was diagnosed."""
    return section("Diagnosis", figures(_pictures(run.diagnoses)), _NOTE) if run.diagnoses else ""


def _pictures(records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    for title, label, lines in _drawn(len(records[0]["stages"])):
        found = [Curve(name, points) for name, read in lines if (points := _points(records, read))]
        if found:
            yield title, curves(title, found, "epochs", label)


def _drawn(stages: int) -> Iterator[tuple[str, str, list[tuple[str, Read]]]]:
    """Yield the titles of pictures, their labels and lines."""
    yield (
        "Squared gradient of the mean model",
        "squared norm",
        [("measured", _top("gradient_square")), ("average, weighed by the rate", _top("gradient_square_average"))],
    )
    noise = ("measured", "predicted", "bound")
    yield "Noise of a gradient", "variance", [(name, _of("noise", name)) for name in noise]
    for k in range(stages):
        title = f"Staleness error of stage {k}"
        yield title, "norm", [("measured", _stage(k, "error")), ("bound", _stage(k, "bound"))]
    distance = [("measured", "distance"), ("bound, one update", "after_update"), ("bound", "bound")]
    yield "Consensus distance", "distance", [(name, _of("consensus", key)) for name, key in distance]
    limits = [(f"limit of stage {k}", _stage(k, "rate_limit")) for k in range(stages)]
    yield "Rate and its limits", "rate", [("rate", _top("rate")), *limits]


def _points(records: Sequence[Record], read: Read) -> list[tuple[float, float]]:
    return [(record["epoch"], value) for record in records if (value := read(record)) is not None]


def _top(name: str) -> Read:
    return lambda record: record.get(name)


def _of(part: str, name: str) -> Read:
    return lambda record: (record.get(part) or {}).get(name)


def _stage(stage: int, name: str) -> Read:
    return lambda record: record["stages"][stage].get(name)
