"""Which grid, method and staleness suit given devices.

Does not know: how runs train.
"""

from stalegrid.planner.planning import Candidate

__all__ = ["Candidate"]
