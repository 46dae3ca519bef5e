"""Tables for the console.

Does not know: what they show.
"""

from rich import box
from rich.console import Console
from rich.table import Table

from stalegrid.observe.stream import Stream, make_console


def plain(*columns: str) -> Table:
    """Return an empty table."""
    return Table(*columns, box=box.SIMPLE, pad_edge=False)


def wide() -> Console:
    """Return a console whose tables are not squeezed where nobody sees its edge."""
    return make_console(width=None if Stream("stdout").isatty() else 200)
