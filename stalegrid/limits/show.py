"""Limits as a table and lines for the console.

Does not know: how they were found.
"""

from collections.abc import Iterator

from rich.table import Table

from stalegrid.limits.measuring import Limit, Limits
from stalegrid.observe import plain


def table(found: Limits) -> Table:
    """Show the limit of every stage."""
    mixed = any(limit.rate != limit.alone for limit in found.each)
    heads = ("stage", "staleness", "curvature", "of now", "rate, nothing late", "largest stable rate")
    shown = plain(*heads, *(["as groups mix"] if mixed else []), "factor", "")
    for limit in found.each:
        rates = [limit.at_once, limit.alone, *([limit.rate] if mixed else [])]
        shown.add_row(
            "all" if limit.stage is None else str(limit.stage),
            str(limit.staleness),
            _curvature(limit),
            f"{limit.fresh:.0%}" if limit.fresh else "",
            *("" if rate is None else f"{rate:.4g}" for rate in rates),
            "" if limit.rate is None or not limit.at_once else f"{limit.rate / limit.at_once:.3g}",
            limit.why + (", above it" if limit in found.exceeded else ""),
        )
    return shown


def _curvature(limit: Limit) -> str:
    if limit.curvature is None:
        return ""
    return f"{limit.curvature:.4g}" + ("" if limit.settled else ", not settled")


def lines(found: Limits) -> Iterator[str]:
    """Say what the table does not."""
    yield f"the schedule's highest rate is {found.peak:.4g}"
    if found.left is not None:
        rests = "groups come together" if found.left < 1 - 1e-9 else "groups do not come together"
        yield f"mixing by itself: {rests}; an update leaves {found.left:.4g} of their distances, in the end"
    if any(limit.taken and limit.stage is not None for limit in found.each):
        yield (
            "with this view what is late of the curvature is not derived for stages that are not linear in their "
            "parameters, and taken to be all of it"
        )
    if any(limit.stage is None and limit.taken for limit in found.each):
        yield (
            "all: along the largest curvature of the whole loss, as late as the stages that have shares of it; an "
            "estimate where they are unlike late"
        )
    for limit in found.each:
        if not limit.trusted:
            yield (
                f"{_who(limit)}: differences of gradients do not show this curvature: a backward of your own, or a "
                "hook on a gradient, cannot be differentiated, or rounding is coarse (take dtype float64)"
            )
    if not all(limit.settled for limit in found.each):
        yield "not settled: the curvature is at least so large; allow more products"


def _who(limit: Limit) -> str:
    return "all stages together" if limit.stage is None else f"stage {limit.stage}"


def _who_bears(limit: Limit) -> str:
    return f"{_who(limit)} {'bear' if limit.stage is None else 'bears'}"


def warnings(found: Limits) -> Iterator[str]:
    """Say which limits the schedule exceeds."""
    for limit in found.exceeded:
        yield (
            f"the schedule's highest rate is above what {_who_bears(limit)} with a staleness of {limit.staleness} "
            f"(rate: {found.peak:.4g}, largest stable: {limit.rate:.4g}, with nothing late: {limit.at_once:.4g}), by "
            "the curvature that the model begins with; see stalegrid limits"
        )
