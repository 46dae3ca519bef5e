"""Numbers that exchanges between groups measure: their means over units, and over a run.

Does not know: what they are, who measures them.
"""

from collections.abc import Iterable, Mapping

from stalegrid.observe.records import Record

TOLD = "told"
"""What records and the summary call them."""


def over_units(told: Mapping[str, Record]) -> dict[str, float]:
    """Return the means of those that some units have measured, by name.

    Args:
        told: by unit, by name; None for what a unit has not measured.
    """
    names = dict.fromkeys(name for numbers in told.values() for name in numbers)
    found = {name: [one[name] for one in told.values() if one[name] is not None] for name in names}
    return {name: _mean(values) for name, values in found.items() if values}


class Numbers:
    """The numbers of a run."""

    def __init__(self) -> None:
        self._found: dict[str, list[float]] = {}

    def add(self, record: Record) -> None:
        """Take in a report."""
        for name, value in over_units(record.get(TOLD, {})).items():
            self._found.setdefault(name, []).append(value)

    def record(self) -> Record:
        """Return the means of all reports as a summary has them; nothing where nothing was measured."""
        return {TOLD: {name: _mean(values) for name, values in self._found.items()}} if self._found else {}


def _mean(values: Iterable[float]) -> float:
    found = list(values)
    return sum(found) / len(found)
