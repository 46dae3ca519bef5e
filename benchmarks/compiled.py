"""``compile: true`` over stages as they are, in plain loops and in two stages, and whether engines compute the same.

How long compiling takes is in nobody's time.
"""

from benchmarks.measure import Row
from benchmarks.precision import changed


def run(turns: int) -> Row:
    """Measure samples a second."""
    return changed(turns, "compiled", "compiled", {"compile": True})
