"""The staleness of a whole run: what units reported, summed by stage or by learner.

Does not know: files, who reports.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

from stalegrid.observe.records import Record


@dataclass
class Summed:
    """The staleness of a stage over a run and over groups, or of a learner over a run.

    Attributes:
        histogram: batches used, by staleness in updates.
        gaps: mean gap of each report that has one, L2 norm of how far weights moved between forward and update.
        gap_max: the largest of all.
        held: most bytes held for batches in flight by one unit.
    """

    histogram: list[int] = field(default_factory=list)
    gaps: list[float] = field(default_factory=list)
    gap_max: float = 0.0
    held: int = 0

    def add(self, seen: Record) -> None:
        """Take in what a unit reported."""
        self.histogram = [a + b for a, b in zip_longest(self.histogram, seen["histogram"], fillvalue=0)]
        self.held = max(self.held, seen.get("held") or 0)
        if seen.get("gap") is not None:
            self.gaps.append(seen["gap"])
            self.gap_max = max(self.gap_max, seen.get("gap_max") or 0.0)

    def record(self) -> Record:
        """Return the sums as a summary has them."""
        batches = sum(self.histogram)
        return {
            "mean": sum(tau * count for tau, count in enumerate(self.histogram)) / batches,
            "max": max(tau for tau, count in enumerate(self.histogram) if count),
            "histogram": self.histogram,
            "gap": sum(self.gaps) / len(self.gaps) if self.gaps else None,
            "gap_max": self.gap_max if self.gaps else None,
            "held": self.held,
        }


class Staleness:
    """The staleness of a run by stage, or by learner.

    Args:
        limit: for learners, staleness above which the share of gradients is told; None for stages.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._summed: dict[int, Summed] = {}

    def add(self, seen: Mapping[str, Record]) -> None:
        """Take in what units reported."""
        for unit, record in seen.items():
            # Records are plain, as a file has them: units go by their names.
            group, stage = map(int, unit.strip("()").split(","))
            self._summed.setdefault(stage if self._limit is None else group, Summed()).add(record)

    def record(self) -> Record:
        """Return what a summary says."""
        if self._limit is None:
            return {"staleness": [{"stage": stage, **total.record()} for stage, total in sorted(self._summed.items())]}
        if not self._summed:
            return {"staleness": []}
        whole = Summed()
        for total in self._summed.values():
            whole.add({"histogram": total.histogram, "gap": None})
        return {
            "staleness": [{"learner": number, **self._told(total)} for number, total in sorted(self._summed.items())],
            "staleness_of_all": self._told(whole),
        }

    def _told(self, total: Summed) -> Record:
        assert self._limit is not None
        above = sum(total.histogram[self._limit + 1 :]) / sum(total.histogram)
        record = {key: value for key, value in total.record().items() if key in ("mean", "max", "histogram")}
        return {**record, "limit": self._limit, "above_limit": above}
