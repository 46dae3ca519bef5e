"""A diagnosis as a table for the console: what was measured, what it is held against, and what that is worth.

Does not know: how anything was measured.
"""

import math
from collections.abc import Iterator

from rich.table import Table

from stalegrid.observe import Record, plain

THEOREM, EQUAL, ESTIMATE, MEASURED, OPEN = "theorem", "equal on average", "estimate", "measured", "open"
"""What it is worth: a proved bound; a proved mean; a bound if what was seen is all there is; nothing; not known."""

Row = tuple[str, str, float | None, float | None, str, str]
"""Quantity, stage, what was measured, what it is held against, what that is worth, and why there is none."""

_ROUNDING = 1e-6
_RATE = "rate: largest stable one"
_OTHERS = "with this view, or micro-batches, updates use other gradients"


def table(record: Record) -> Table:
    """Show a diagnosis.

    Args:
        record: as a line of ``metrics.jsonl`` of this kind.
    """
    shown = plain("quantity", "stage", "measured", "held against", "", "standing", "")
    for name, stage, measured, against, standing, why in rows(record):
        sign = _sign(measured, against, standing)
        shown.add_row(name, stage, _number(measured), _number(against), sign, standing, why)
    return shown


def rows(record: Record) -> Iterator[Row]:
    """Yield the rows of the table."""
    yield "squared gradient of the mean model", "all", record["gradient_square"], None, MEASURED, ""
    yield "its average, weighed by the rate", "all", record["gradient_square_average"], None, OPEN, ""
    yield from _noise(record)
    for k, stage in enumerate(record["stages"]):
        why = "" if record["used"] else _OTHERS
        yield "staleness error: L_k x gap", str(k), stage["error"], stage["bound"], ESTIMATE, why
    if record["consensus"] is not None:
        yield from _consensus(record["consensus"])
    for k, stage in enumerate(record["stages"]):
        yield _RATE, str(k), record["rate"], stage["rate_limit"], ESTIMATE, stage["why"]
    if len(record["stages"]) > 1:
        yield _RATE, "all", record["rate"], record["rate_limit"], ESTIMATE, record["rate_limit_why"]


def _noise(record: Record) -> Iterator[Row]:
    noise = record["noise"]
    stages = [(str(k), stage["noise"], stage["predicted"]) for k, stage in enumerate(record["stages"])]
    for name, measured, predicted in (*stages, ("all", noise["measured"], noise["predicted"])):
        yield "variance of a batch: sigma_k^2 / B", name, measured, predicted, EQUAL, noise["why"]
    if noise["bound"] is not None:
        yield "sum of sigma_k^2 / B: K sigma^2 / B", "all", noise["predicted"], noise["bound"], THEOREM, ""


def _consensus(consensus: Record) -> Iterator[Row]:
    distance, why = consensus["distance"], consensus["why"]
    yield "consensus distance: by one update", "all", distance, consensus["after_update"], THEOREM, why
    standing = THEOREM if consensus["every_update"] else ESTIMATE
    yield "consensus distance: by all updates", "all", distance, consensus["bound"], standing, why


def _sign(measured: float | None, against: float | None, standing: str) -> str:
    if measured is None or against is None:
        return ""
    if standing == EQUAL:
        return "~"
    # Some bounds are met: what is above one by rounding alone is not above it.
    return "<=" if measured <= against or math.isclose(measured, against, rel_tol=_ROUNDING) else "above"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4g}"
