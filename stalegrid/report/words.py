"""Numbers of a run as people read them.

Does not know: which numbers there are.
"""

from collections.abc import Sequence


def count(value: float) -> str:
    """Return a number of updates or epochs."""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def duration(seconds: float) -> str:
    """Return a time with units that suit it."""
    if seconds < 60:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


def rate(value: float) -> str:
    """Return how many a second, large numbers whole."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def metric(name: str) -> str:
    """Return what people call a metric."""
    return name.replace("_", " ")


def both(words: Sequence[str]) -> str:
    """Return words as a sentence lists them."""
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))
