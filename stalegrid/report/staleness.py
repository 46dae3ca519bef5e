"""How stale gradients were, how far weights moved meanwhile, and whether that stayed within its bound.

Does not know: what staleness does to learning.
"""

from collections.abc import Iterator

from stalegrid.observe import Record, Staleness
from stalegrid.report.figures import Curve, bars, curves, histogram
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.page import figures, section
from stalegrid.report.series import by_stage, gap_of_stages
from stalegrid.report.told import Team, Told
from stalegrid.report.words import both

_NOTE = "Share of the batches by their staleness: updates between the forward of a batch and the update that used it."

_SERVED = (
    "Share of the gradients by their staleness tau = i - j, in updates: computed at version j of the weights, taken at "
    "version i. With n-softsync it is about n on average, and rarely above 2n."
)

_GAP = (
    "How far the weights of a stage moved between the forward of a batch and the update that used it: L2 norm, mean "
    "over groups."
)

RARELY = 0.01
"""Share of the gradients that may be staler than 2n where servers have no bound."""


def staleness_section(run: Told) -> str:
    """Return the part of a page."""
    return _of_stages(run) if run.team is None else _of_learners(run, run.team)


def _of_stages(run: Told) -> str:
    stages = by_stage(run.train)
    most = max((len(summed.histogram) - 1 for summed in stages.values()), default=0)
    drawn = []
    for stage, summed in stages.items():
        mean = summed.record()["mean"]
        name = f"stage {stage}: mean {mean:.3g}"
        drawn.append((name, bars(f"Staleness of {name}", summed.histogram, most)))
    return section("Staleness", figures(drawn, small=True), _NOTE)


def _of_learners(run: Told, team: Team) -> str:
    limit, told = 2 * team.splits, served(run, team)
    if not told["staleness"]:
        return ""
    every = told["staleness_of_all"]
    above = f"{100 * every['above_limit']:.3g}% above 2n = {limit}"
    name = f"all learners: mean {every['mean']:.3g}, maximum {every['max']}, {above}"
    whole = histogram(f"Staleness of {name}", every["histogram"], ("2n", limit), "staleness", "gradients")
    drawn = []
    for one in told["staleness"]:
        title = f"learner {one['learner']}: mean {one['mean']:.3g}"
        drawn.append((title, bars(f"Staleness of {title}", one["histogram"], every["max"])))
    return section("Staleness", [*figures([(name, whole)]), *figures(drawn, small=True)], _SERVED)


def served(run: Told, team: Team) -> Record:
    """Return the staleness of learners as a summary has it."""
    staleness = Staleness(2 * team.splits)
    for record in run.train:
        staleness.add(record["staleness"])
    return staleness.record()


def gap_section(run: Told) -> str:
    """Return the part of a page."""
    drawn = [Curve(f"stage {stage}", found) for stage, found in gap_of_stages(run.train).items()]
    picture = [("Gap over epochs", curves("Gap over epochs", drawn, "epochs", "gap"))] if drawn else []
    return section("Gap", figures(picture), _GAP)


def staleness_verdict(run: Told) -> Iterator[Verdict]:
    """Hold the staleness that was met against the bound that the plan has."""
    if run.team is not None:
        yield from _served_verdict(run, run.team)
        return
    bounds = run.summary.get("staleness_at_most") or []
    most = {stage: summed.record()["max"] for stage, summed in by_stage(run.train).items()}
    if not most or len(bounds) <= max(most):
        return
    shown = [f"{met} of {bounds[stage]}" for stage, met in sorted(most.items())]
    line = f"{both(shown)} updates at most, stage by stage"
    if over := [stage for stage, met in sorted(most.items()) if met > bounds[stage]]:
        yield Verdict(Mark.WRONG, f"Staleness exceeded its bound at stage {both(list(map(str, over)))}: {line}.")
    else:
        yield Verdict(Mark.WELL, f"Staleness stayed within its bound: {line}.")


def _served_verdict(run: Told, team: Team) -> Iterator[Verdict]:
    told = served(run, team)
    if not told["staleness"]:
        return
    every, bound = told["staleness_of_all"], run.asked("servers.max_staleness")
    met = f"{every['max']} updates at most, {every['mean']:.3g} on average"
    if bound is None:
        well = every["above_limit"] <= RARELY
        above = f"{100 * every['above_limit']:.3g}% of the gradients"
        line = f"{above} were staler than 2n = {every['limit']}, and there is no bound: {met}."
    else:
        well = every["max"] <= bound
        line = f"Staleness {'stayed within' if well else 'exceeded'} its bound of {bound}: {met}."
    yield Verdict(Mark.WELL if well else Mark.WRONG, line)
