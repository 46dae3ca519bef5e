"""Which published method is which setting of the parts, and how it is cited.

Does not know: how any part works.
"""

from stalegrid.methods.choose import Named, find, find_grid, schedule
from stalegrid.methods.method import Method, Reduction, ServerMethod
from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.methods.references import bibtex
from stalegrid.methods.settings import MethodSettings

__all__ = [
    "METHODS",
    "SERVER_METHODS",
    "Method",
    "MethodSettings",
    "Named",
    "Reduction",
    "ServerMethod",
    "bibtex",
    "find",
    "find_grid",
    "schedule",
]
