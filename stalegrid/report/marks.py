"""What went well or wrong in a run: a line each, marked by a word and not by its colour alone.

Does not know: how a line is found out.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from html import escape

from stalegrid.report.page import text


class Mark(Enum):
    """How it went."""

    WELL = "well"
    WRONG = "wrong"
    OPEN = "open"


@dataclass(frozen=True)
class Verdict:
    """What is said of one side of a run.

    Args:
        mark: how it went; open where the numbers do not decide it.
        line: what is said, with the numbers.
    """

    mark: Mark
    line: str


def listed(verdicts: Iterable[Verdict]) -> str:
    """Return a list, what went wrong first; nothing for none."""
    order = [Mark.WRONG, Mark.OPEN, Mark.WELL]
    found = sorted(verdicts, key=lambda verdict: order.index(verdict.mark))
    lines = "\n".join(
        f'<li class="{one.mark.value}">{text("strong", one.mark.value)}<span>{escape(one.line)}</span></li>'
        for one in found
    )
    return f'<ul class="verdicts">\n{lines}\n</ul>' if found else ""
