"""Numbers of records one after the other, as curves and sums take them.

Does not know: which numbers are drawn, or how.
"""

from collections.abc import Sequence

from stalegrid.observe import Record, Summed

EPOCHS = ("epoch", "epochs")
"""What curves are drawn over: the entry of records, and what it counts."""


def points(records: Sequence[Record], x: str, y: str) -> list[tuple[float, float]]:
    """Return the numbers of two entries, of the records that have both."""
    return [(r[x], r[y]) for r in records if r.get(x) is not None and r.get(y) is not None]


def by_stage(records: Sequence[Record]) -> dict[int, Summed]:
    """Sum up the staleness of every stage over reports and groups."""
    found: dict[int, Summed] = {}
    for record in records:
        for unit, seen in record["staleness"].items():
            found.setdefault(stage_of(unit), Summed()).add(seen)
    return found


def stage_of(unit: str) -> int:
    """Return the stage of a unit by its name in records."""
    return int(unit.strip("()").split(",")[1])


def gap_of_stages(records: Sequence[Record]) -> dict[int, list[tuple[float, float]]]:
    """Return the mean gap of each stage over groups, by epoch; see :class:`~stalegrid.observe.Summed`."""
    lines: dict[int, list[tuple[float, float]]] = {}
    for record in records:
        for stage, summed in by_stage([record]).items():
            if summed.gaps:
                lines.setdefault(stage, []).append((record["epoch"], sum(summed.gaps) / len(summed.gaps)))
    return lines
