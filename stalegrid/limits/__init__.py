"""Which learning rates a run bears, by the curvature of its loss and by how late it is.

Does not know: engines, how a run is asked for and carried out.
"""

from stalegrid.limits.curvature import largest
from stalegrid.limits.delays import ALL_LATE, factor
from stalegrid.limits.losses import Losses, Sample, read_sample
from stalegrid.limits.measuring import BATCHES, PRODUCTS, Limit, Limits, limits_at, measure_limits, optimizer_of
from stalegrid.limits.rules import Unknown, rounds_of
from stalegrid.limits.show import lines, table, warnings

__all__ = [
    "ALL_LATE",
    "BATCHES",
    "PRODUCTS",
    "Limit",
    "Limits",
    "Losses",
    "Sample",
    "Unknown",
    "factor",
    "largest",
    "limits_at",
    "lines",
    "measure_limits",
    "optimizer_of",
    "read_sample",
    "rounds_of",
    "table",
    "warnings",
]
