"""How a run, as it was asked for, is planned, carried out and gone on with.

Does not know: how any part works.
"""

from stalegrid.runs.executing import execute
from stalegrid.runs.here import get_ready
from stalegrid.runs.planning import find_limits, prepare
from stalegrid.runs.results import Result

__all__ = ["Result", "execute", "find_limits", "get_ready", "prepare"]
