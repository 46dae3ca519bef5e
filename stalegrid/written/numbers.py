"""What counts as a number wherever one is asked for: it fits into 64 bits, and true is none.

Does not know: who asks.
"""

import math
from typing import Any

# As torch and NumPy have them; JSON, YAML and Python have whole numbers of any length.
_LARGEST = 2**63


def whole(value: Any) -> bool:
    """Return whether a value is a whole number of 64 bits."""
    return isinstance(value, int) and not isinstance(value, bool) and -_LARGEST <= value < _LARGEST


def finite(value: Any) -> bool:
    """Return whether a value is a number, and not an infinite one."""
    return whole(value) or (isinstance(value, float) and math.isfinite(value))
