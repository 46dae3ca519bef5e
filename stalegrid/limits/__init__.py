"""Which learning rates a run bears, by the curvature of its loss and by how late it is.

Does not know: engines, how a run is asked for and carried out.
"""

from stalegrid.limits.delays import factor
from stalegrid.limits.measuring import BATCHES, PRODUCTS, Limit, Limits, measure_limits
from stalegrid.limits.show import lines, table, warnings

__all__ = ["BATCHES", "PRODUCTS", "Limit", "Limits", "factor", "lines", "measure_limits", "table", "warnings"]
