"""What units did when, and who waited for whom, where a run has left a trace.

Does not know: what actions compute.
"""

from collections.abc import Iterator

from stalegrid.observe import names, shares, waits
from stalegrid.report.figures import WIDTH
from stalegrid.report.gantt import gantt, steady
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.page import either, section, table
from stalegrid.report.told import Told
from stalegrid.report.words import duration

LONG = 0.1
"""Share of the time that one unit may have waited for another."""


def timeline_section(run: Told) -> str:
    """Return the part of a page."""
    timeline = run.timeline
    if timeline is None or not (found := shares(timeline)):
        return ""
    wide, narrow = steady(timeline), steady(timeline, rounds=2)
    kind = "virtual" if timeline.virtual else "real"
    left_out = f" The first {len(wide.units)} of {len(found)} units." if len(found) > len(wide.units) else ""
    pictures = either(
        gantt("Timeline of some rounds", timeline, wide), gantt("Timeline of two rounds", timeline, narrow, WIDTH)
    )
    named = names(s.unit for s in found)
    rows = [(named[s.unit], f"{s.busy:.1%}", f"{s.waiting:.1%}", f"{s.communicating:.1%}") for s in found]
    numbers = table(("unit", "busy", "waiting", "communicating"), rows, numbers=True)
    who = "unit (group, stage)" if run.team is None else "server and learner"
    note = (
        f"What every {who} did when, in the middle of the run, in {kind} time.{left_out} Below, how it "
        "spent the whole run: communicating is waiting for a message that is under way."
    )
    return section("Timeline", [pictures, numbers], note)


def waits_verdict(run: Told) -> Iterator[Verdict]:
    """Say who waited for whom most; not of one process that takes turns in real time, where all wait for all."""
    timeline = run.timeline
    if timeline is None or not run.timed or not (found := shares(timeline)):
        return
    named = names(share.unit for share in found)
    waited = {pair: time for pair, time in waits(timeline).items() if named.keys() >= set(pair)}
    if not waited:
        yield Verdict(Mark.WELL, "Nobody waited for anybody.")
        return
    (who, whom), most = max(waited.items(), key=lambda one: one[1])
    share = most / max(span.end for span in timeline.spans if span.unit in named)
    kind = "virtual time" if timeline.virtual else "time"
    numbers = f"{named[who]} for {named[whom]}, {duration(most / 1e9)} or {share:.0%} of the {kind}"
    if share < LONG:
        yield Verdict(Mark.WELL, f"Nobody waited long; longest {numbers}.")
    else:
        yield Verdict(Mark.WRONG, f"Longest waited {numbers}.")
