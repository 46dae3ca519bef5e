"""What the report of a run says, part by part.

Does not know: what any part says, files, how pictures are drawn.
"""

from collections.abc import Iterator

from stalegrid.report.apart import apart_verdict, consensus_section, exchange_section
from stalegrid.report.chosen import chosen_section
from stalegrid.report.dealt import dealt_section
from stalegrid.report.diagnosed import diagnosed_section
from stalegrid.report.ending import ending_verdict, lost_verdict, subtitle
from stalegrid.report.learning import learning_section, learning_verdict
from stalegrid.report.marks import Verdict, listed
from stalegrid.report.network import network_section
from stalegrid.report.numbers import headline
from stalegrid.report.page import facts, page, text
from stalegrid.report.rates import rates_verdict
from stalegrid.report.staleness import gap_section, staleness_section, staleness_verdict
from stalegrid.report.timelines import timeline_section, waits_verdict
from stalegrid.report.told import Told

VERDICTS = (
    ending_verdict,
    lost_verdict,
    learning_verdict,
    staleness_verdict,
    rates_verdict,
    apart_verdict,
    waits_verdict,
)
"""What the report opens on: each says what went well or wrong, or nothing where the folder does not tell."""

SECTIONS = (
    learning_section,
    staleness_section,
    gap_section,
    consensus_section,
    diagnosed_section,
    exchange_section,
    dealt_section,
    network_section,
    timeline_section,
    chosen_section,
)
"""Parts of the page; each is empty where the folder does not tell."""


def report(run: Told) -> str:
    """Return the page."""
    name = name_of(run)
    head = [text("h1", name), text("p", subtitle(run)), verdicts(run), facts(_headline(run))]
    return page(f"{name}: report", filter(None, [*head, *(section(run) for section in SECTIONS)]))


def name_of(run: Told) -> str:
    """Say in a few words what was trained how."""
    return " on ".join(str(name) for path in ("method.name", "data.name") if (name := run.asked(path))) or "A run"


def verdicts(run: Told) -> str:
    """Return what went well or wrong, and how to see more of that."""
    found: list[Verdict] = [verdict for find in VERDICTS for verdict in find(run)]
    return listed(found) + "".join(text("p", line) for line in _more(run))


def _more(run: Told) -> Iterator[str]:
    rates = run.limits or any(rates_verdict(run))
    wanted = {
        "--output.limits true": "which learning rates it bears" if not rates and run.team is None else "",
        "--output.trace true": "who waited for whom" if run.timeline is None and run.timed else "",
    }
    if told := [f"{what} ({option})" for option, what in wanted.items() if what]:
        yield f"Not measured: {' and '.join(told)}."


def _headline(run: Told) -> Iterator[tuple[str, str]]:
    yield "method", str(run.asked("method.name"))
    if run.team is None:
        yield "groups x stages", f"{run.asked('grid.groups')} x {run.asked('grid.stages')}"
    else:
        yield from zip(("learners", "servers", "n"), map(str, vars(run.team).values()), strict=True)
    yield from ((number.name, str(number)) for number in headline(run))
