"""What was found, as a table and as sentences for the console.

Does not know: what was looked at.
"""

from rich.table import Table

from stalegrid.doctor.examining import Examined
from stalegrid.observe import plain


def table(examined: Examined) -> Table:
    """Return one row for each thing that was looked at."""
    shown = plain("", "looked at", "found")
    for row in examined.rows:
        shown.add_row("change" if row.needed else "note" if row.advised else "ok", row.what, row.found)
    return shown


def words(examined: Examined) -> list[str]:
    """Return what to change, what to note, and the verdict, a sentence each."""
    needed = [f"change: {line}" for row in examined.rows for line in row.needed]
    advised = [f"note: {line}" for row in examined.rows for line in row.advised]
    one = examined.hosts == 1
    where = "this host" if one else f"these {examined.hosts} hosts"
    last = f"{where} cannot run it as {'it is' if one else 'they are'}" if needed else f"{where} can run it"
    return [*needed, *advised, last]
