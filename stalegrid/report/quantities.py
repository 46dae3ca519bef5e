"""The quantities of a diagnosis: the lines of each, first what was measured and then what that is held against.

Does not know: pictures, pages, how anything was measured.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from stalegrid.observe import Record
from stalegrid.report.series import EPOCHS

Read = Callable[[Record], Any]


@dataclass(frozen=True)
class Line:
    """A number, version by version.

    Args:
        name: in the legend.
        read: it from a record; None where there is none.
        why: reads why there is none; nothing where the record does not say.
    """

    name: str
    read: Read
    why: Read = lambda record: ""

    def points(self, records: Sequence[Record]) -> list[tuple[float, float]]:
        """Return the numbers that there are, by epoch."""
        return [(record[EPOCHS[0]], value) for record in records if (value := self.read(record)) is not None]

    def whys(self, records: Sequence[Record]) -> list[str]:
        """Return why there are none."""
        return list(dict.fromkeys(why for record in records if (why := self.why(record))))


@dataclass(frozen=True)
class Quantity:
    """What is shown in one picture.

    Args:
        title: of the picture.
        label: of the axis.
        measured: what was.
        against: what it is held against; nothing where it is held against nothing.
        worth: of that, in a sentence.
        log: whether it is seen by its orders of magnitude alone.
    """

    title: str
    label: str
    measured: tuple[Line, ...]
    against: tuple[Line, ...] = ()
    worth: str = ""
    log: bool = False


def stages_of(records: Sequence[Record]) -> int:
    """Return how many stages all records have."""
    return min(len(record["stages"]) for record in records)


def quantities(stages: int) -> Iterator[Quantity]:
    """Yield what a diagnosis has of so many stages, and of all together."""
    square = Line("measured", _top("gradient_square"))
    average = Line("average, weighed by the rate", _top("gradient_square_average"))
    yield Quantity("Squared gradient of the mean model", "squared norm", (square, average))
    yield _noise()
    yield from map(_error, range(stages))
    yield _consensus()
    yield _rate(stages)


def _noise() -> Quantity:
    against = tuple(_part("noise", name, name) for name in ("predicted", "bound"))
    worth = "The noise of a gradient is predicted by single samples, and at most K sigma^2 / B on average."
    return Quantity("Noise of a gradient", "variance", (_part("noise", "measured", "measured"),), against, worth)


def _error(stage: int) -> Quantity:
    lines = (Line("measured", _stage(stage, "error")),), (Line("bound", _stage(stage, "bound")),)
    worth = (
        "Bounds of staleness errors are of the curvature at one model, and estimates where the loss is no quadratic."
    )
    return Quantity(f"Staleness error of stage {stage}", "norm", *lines, worth)


def _consensus() -> Quantity:
    names = {"after_update": "bound by one update", "bound": "bound by all updates"}
    against = tuple(_part("consensus", key, name) for key, name in names.items())
    worth = (
        "The bound of the consensus distance by all updates is of the largest step among the versions that were "
        "diagnosed."
    )
    return Quantity("Consensus distance", "distance", (_part("consensus", "distance", "measured"),), against, worth)


def _rate(stages: int) -> Quantity:
    each = [Line(f"limit of stage {k}", _stage(k, "rate_limit"), _stage(k, "why")) for k in range(stages)]
    whole = Line("limit of all stages", _top("rate_limit"), _top("rate_limit_why"))
    # The limit of a single stage is that of all.
    against = (whole, *(each if stages > 1 else ()))
    worth = "Limits of the rate are of the curvature at one model, and estimates."
    # Stages that are less stale bear tens of times more than others.
    return Quantity("Rate and its limits", "rate", (Line("rate", _top("rate")),), against, worth, log=True)


def _part(part: str, key: str, name: str) -> Line:
    def read(entry: str) -> Read:
        return lambda record: (record.get(part) or {}).get(entry)

    return Line(name, read(key), read("why"))


def _top(name: str) -> Read:
    return lambda record: record.get(name)


def _stage(stage: int, name: str) -> Read:
    return lambda record: record["stages"][stage].get(name)
