"""Whether the learning rate went above what stages bear, where that was measured before the start.

Does not know: how it was measured.
"""

from collections.abc import Iterator, Sequence

from stalegrid.observe import Record
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.told import Told
from stalegrid.report.words import both


def rates_verdict(run: Told) -> Iterator[Verdict]:
    """Hold the rates that reports tell of against the lowest limit."""
    known = [limit for limit in run.limits.get("each", ()) if limit.get("rate") is not None]
    for why in sorted({limit["why"] for limit in run.limits.get("each", ()) if limit.get("rate") is None}):
        yield Verdict(Mark.OPEN, f"The largest stable rate is {why}." if why.startswith("not ") else f"{why}.")
    rates = [(record["update"], record["lr"]) for record in run.train if record.get("lr") is not None]
    if known:
        yield _held(rates, min(known, key=lambda limit: float(limit["rate"])), run.limits["peak"])


def _held(rates: Sequence[tuple[int, float]], limit: Record, peak: float) -> Verdict:
    who = "all stages together bear" if limit["stage"] is None else f"stage {limit['stage']} bears"
    bears = f"{limit['rate']:.4g}, which {who} with a staleness of {limit['staleness']}"
    most = max((rate for _, rate in rates), default=0.0)
    if above := _stretches(rates, limit["rate"]):
        return Verdict(Mark.WRONG, f"The learning rate was above {bears}, in {both(above)}: {most:.4g} at most.")
    if peak > limit["rate"]:
        return Verdict(Mark.OPEN, f"The schedule goes up to {peak:.4g}, above {bears}; no report tells of that yet.")
    return Verdict(Mark.WELL, f"The learning rate stayed within {bears}: {most:.4g} at most.")


def _stretches(rates: Sequence[tuple[int, float]], limit: float) -> list[str]:
    """Say from which to which update reports, one after the other, tell of a higher rate."""
    found: list[list[int]] = []
    before = False
    for update, rate in rates:
        if rate > limit:
            found = [*found[:-1], [found[-1][0], update]] if before else [*found, [update, update]]
        before = rate > limit
    return [f"the report of update {a}" if a == b else f"the reports of updates {a} to {b}" for a, b in found]
