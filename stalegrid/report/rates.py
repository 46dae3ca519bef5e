"""Whether the learning rate went above what stages bear, where that was measured before the start or on the way.

Does not know: how it was measured.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stalegrid.observe import Record
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.told import Told
from stalegrid.report.words import both

_REPORTS = "report of update", "reports of updates"
_DIAGNOSES = "diagnosis of version", "diagnoses of versions"


@dataclass(frozen=True)
class _Diagnosed:
    """A rate beside the lowest limit of then.

    Args:
        version: that was diagnosed.
        rate: of then.
        limit: the lowest one.
        who: bears it, in words.
    """

    version: int
    rate: float
    limit: float
    who: str

    @property
    def share(self) -> float:
        """The rate as a share of the limit, which is 0 where groups part at any rate."""
        return self.rate / self.limit if self.limit > 0 else math.inf


def rates_verdict(run: Told) -> Iterator[Verdict]:
    """Hold the rates that reports tell of against the lowest limit, and those of diagnoses against the one of then."""
    each = run.limits.get("each", ())
    known = [limit for limit in each if limit.get("rate") is not None]
    then = [found for record in run.diagnoses for found in _diagnosed(record)]
    whys = {limit["why"] for limit in each if limit.get("rate") is None}
    if not then:
        whys |= {record.get("rate_limit_why") or "" for record in run.diagnoses}
    for why in sorted(filter(None, whys)):
        yield Verdict(Mark.OPEN, f"The largest stable rate is {why}." if why.startswith("not ") else f"{why}.")
    rates = [(record["update"], record["lr"]) for record in run.train if record.get("lr") is not None]
    if known:
        yield _held(rates, min(known, key=lambda limit: float(limit["rate"])), run.limits["peak"])
    if then:
        yield _held_then(then)


def _held(rates: Sequence[tuple[int, float]], limit: Record, peak: float) -> Verdict:
    bears = (
        f"{limit['rate']:.4g}, which {_who_bears(limit['stage'])} with a staleness of {limit['staleness']} by the "
        "curvature that the model began with"
    )
    most = max((rate for _, rate in rates), default=0.0)
    above = _stretches([(update, rate > limit["rate"]) for update, rate in rates], *_REPORTS)
    if above:
        return Verdict(Mark.WRONG, f"The learning rate was above {bears}, in {above}: {most:.4g} at most.")
    if peak > limit["rate"]:
        return Verdict(Mark.OPEN, f"The schedule goes up to {peak:.4g}, above {bears}; no report tells of that yet.")
    return Verdict(Mark.WELL, f"The learning rate stayed within {bears}: {most:.4g} at most.")


def _held_then(found: Sequence[_Diagnosed]) -> Verdict:
    bear = "what stages bear by the curvature of then"
    most = max(found, key=lambda one: one.share)
    numbers = f"at version {most.version}, {most.rate:.4g} where {most.who} {most.limit:.4g}"
    above = _stretches([(one.version, one.rate > one.limit) for one in found], *_DIAGNOSES)
    if above:
        return Verdict(Mark.WRONG, f"The learning rate was above {bear}, in {above}: most so {numbers}.")
    within = _stretches([(one.version, True) for one in found], *_DIAGNOSES)
    return Verdict(Mark.WELL, f"The learning rate stayed within {bear}, in {within}: nearest to it {numbers}.")


def _diagnosed(record: Record) -> Iterator[_Diagnosed]:
    """Yield the rate of a diagnosis beside the lowest limit; nothing where none is known."""
    # Of equal limits a stage's own says more; a single stage has that of all.
    limits = [(stage.get("rate_limit"), k) for k, stage in enumerate(record["stages"])]
    known = [(limit, k) for limit, k in (*limits, (record.get("rate_limit"), None)) if limit is not None]
    if known and record.get("rate") is not None:
        limit, stage = min(known, key=lambda one: float(one[0]))
        yield _Diagnosed(record["version"], record["rate"], limit, _who_bears(stage))


def _who_bears(stage: int | None) -> str:
    return "all stages together bear" if stage is None else f"stage {stage} bears"


def _stretches(found: Sequence[tuple[int, bool]], one: str, several: str) -> str:
    """Say from which to which record, one after the other, something is so; nothing where it never is.

    Args:
        found: of each record its number, and whether it is so.
        one: what a record is called.
        several: likewise.
    """
    ends: list[list[int]] = []
    before = False
    for number, so in found:
        if so:
            ends = [*ends[:-1], [ends[-1][0], number]] if before else [*ends, [number, number]]
        before = so
    return both([f"the {one} {a}" if a == b else f"the {several} {a} to {b}" for a, b in ends]) if ends else ""
