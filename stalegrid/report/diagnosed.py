"""What was measured of the theory, version by version: each quantity as a line, and beside it what it is held against.

Does not know: folders, how anything was measured, which quantities there are.
"""

from collections.abc import Iterator, Sequence

from stalegrid.observe import Record
from stalegrid.report.figures import COLOURS, Curve, curves
from stalegrid.report.page import figures, section, text
from stalegrid.report.quantities import Line, Quantity, quantities, stages_of
from stalegrid.report.series import EPOCHS
from stalegrid.report.told import Told
from stalegrid.report.words import both


def diagnosed_section(run: Told) -> str:
    """Return the part of a page; nothing where nothing was diagnosed."""
    if not (records := run.diagnoses):
        return ""
    shown = list(quantities(stages_of(records)))
    # A sentence is said once, also of a quantity of every stage, and only of lines that are drawn.
    worth = dict.fromkeys(q.worth for q in shown if any(line.points(records) for line in q.against))
    note = f"What was measured of the theory{', and dashed what it is held against' if worth else ''}."
    pictures = (picture for quantity in shown for picture in _picture(quantity, records))
    return section("Diagnosis", figures(pictures), " ".join([note, *worth]))


def _picture(quantity: Quantity, records: Sequence[Record]) -> Iterator[tuple[str, str]]:
    drawn = [Curve(line.name, found) for line in quantity.measured if (found := line.points(records))]
    for line in quantity.against:
        if found := line.points(records):
            # Colours come again where there are many stages.
            drawn.append(Curve(line.name, found, "--" if len(drawn) < len(COLOURS) else ":"))
    if drawn:
        picture = curves(quantity.title, drawn, EPOCHS[1], quantity.label, log=quantity.log)
        yield quantity.title, picture + "".join(text("p", line) for line in _missing(quantity.against, records))


def _missing(lines: Sequence[Line], records: Sequence[Record]) -> Iterator[str]:
    """Say why lines are not drawn, those of one reason together."""
    names: dict[str, list[str]] = {}
    for line in lines:
        if not line.points(records):
            for why in line.whys(records):
                names.setdefault(why, []).append(line.name)
    yield from (f"Without {both(without)}: {why}." for why, without in names.items())
