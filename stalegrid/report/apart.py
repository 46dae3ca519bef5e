"""How far groups are apart, in their weights and in what they predict, and what their exchanges have measured.

Does not know: how groups exchange.
"""

import math
from collections.abc import Iterator

from stalegrid.observe import JS_DISTANCE, TOLD, Record, over_units
from stalegrid.report.figures import Curve, curves
from stalegrid.report.marks import Mark, Verdict
from stalegrid.report.page import figures, section
from stalegrid.report.series import points, stage_of
from stalegrid.report.told import Told
from stalegrid.report.words import metric

_CONSENSUS = (
    "How far groups are from their mean: the root of the mean squared L2 distance. Where it was measured, how far they "
    "are apart in what they predict: the root of the mean Jensen-Shannon divergence of their classes' probabilities on "
    "the test data, in natural units. Groups count as together below 1% of the norm of the mean model, or below half "
    "of the farthest that they were; as apart above 10%, above 1% and never farther, or above a quarter of the "
    "largest Jensen-Shannon distance that so many groups can have."
)

_EXCHANGE = "What the exchanges of groups have measured, as the mean over the groups of each stage."

NEAR, FAR = 0.01, 0.1
"""Distances from the mean, as shares of its norm."""

UNLIKE = 0.25
"""Jensen-Shannon distance, as a share of the largest."""


def consensus_section(run: Told) -> str:
    """Return the part of a page."""
    return section("Consensus", figures(_consensus(run)), _CONSENSUS)


def distances(run: Told) -> list[tuple[float, float]]:
    """Return how far groups were from their mean, by epoch; nothing for one group."""
    return points(run.test, "epoch", "consensus_distance") if (run.asked("grid.groups") or 1) > 1 else []


def _consensus(run: Told) -> Iterator[tuple[str, str]]:
    if found := distances(run):
        title = "Consensus distance over epochs"
        yield title, curves(title, [Curve("consensus distance", found)], "epochs", "consensus distance")
    if apart := points(run.test, "epoch", JS_DISTANCE):
        title = "Jensen-Shannon distance over epochs"
        yield title, curves(title, [Curve("Jensen-Shannon distance", apart)], "epochs", "Jensen-Shannon distance")


def exchange_section(run: Told) -> str:
    """Return the part of a page."""
    return section("Exchange", figures(_told(run)), _EXCHANGE)


def _told(run: Told) -> Iterator[tuple[str, str]]:
    """Yield the numbers that exchanges have measured, as means over groups."""
    lines: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for record in run.train:
        told: Record = record.get(TOLD) or {}
        for stage in sorted(set(map(stage_of, told))):
            own = {unit: numbers for unit, numbers in told.items() if stage_of(unit) == stage}
            for name, value in over_units(own).items():
                lines.setdefault((name, stage), []).append((record["epoch"], value))
    for name in dict.fromkeys(name for name, _ in lines):
        drawn = [Curve(f"stage {stage}", found) for (other, stage), found in lines.items() if other == name]
        title = f"{metric(name)} over epochs"
        yield title, curves(title, drawn, "epochs", metric(name))


def apart_verdict(run: Told) -> Iterator[Verdict]:
    """Hold the last distance of groups against the norm of their mean and against the farthest that they were."""
    found = [distance for _, distance in distances(run)]
    if not found or not run.norm or not math.isfinite(run.norm):
        return
    last, share = found[-1], found[-1] / run.norm
    numbers = f"{last:.3g} from their mean at the end, {100 * share:.2g}% of its norm, and {max(found):.3g} at most"
    most, unlike = math.sqrt(math.log(run.asked("grid.groups"))), 0.0
    if told := [distance for _, distance in points(run.test, "epoch", JS_DISTANCE)]:
        numbers += f"; Jensen-Shannon distance {told[-1]:.3g} of at most {most:.3g}"
        unlike = told[-1] / most
    farthest = len(found) > 1 and last == max(found)
    if share > FAR or unlike > UNLIKE or (share > NEAR and farthest):
        yield Verdict(Mark.WRONG, f"Groups are apart: {numbers}.")
    elif share < NEAR or last < max(found) / 2:
        yield Verdict(Mark.WELL, f"Groups came together: {numbers}.")
    else:
        yield Verdict(Mark.OPEN, f"Groups are neither together nor far apart: {numbers}.")
