"""Pictures as SVG text that takes its colours and its width from the page it is put into.

Does not know: folders, records, the page beyond the names of its colours.
"""

import html
import io
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle
from statistics import fmean
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, PercentFormatter

# Nothing else in a picture has these, so that each can be replaced by what the page calls it.
INK = "#010203"
PAPER = "#fdfcfb"
BLUE, RED, GREEN, PURPLE, NAVY, GREY = "#0072b2", "#c05000", "#007a5a", "#a8487f", "#2b3a67", "#6f6f6f"

ON_PAGE = {
    INK: "currentColor",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    RED: "var(--red)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    NAVY: "var(--navy)",
    GREY: "var(--grey)",
}
"""What takes the place of each colour, so that a page can be light or dark."""

COLOURS = BLUE, RED, GREEN, PURPLE, GREY
"""Of curves, one after the other."""

WIDTH = 360
"""Of a picture beside others, in points; a page shows them about as large on a phone and in columns."""

FONT = 12
"""Points."""

_SAMPLE, _LETTER = 3.4 * FONT, 0.57 * FONT
"""Widths in a legend: of a line and the room around it, and of a letter beside it."""

MOST_POINTS = 400
"""Of a curve; of more, means of neighbours are drawn."""

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Curve:
    """A line of a picture.

    Args:
        name: in the legend; one without is not in it.
        points: (x, y) in the order of x.
        style: of the line, as matplotlib has them; one that tells it from the others if left out.
        colour: of the page; likewise.
    """

    name: str
    points: Points
    style: str = ""
    colour: str = ""


def curves(title: str, lines: Sequence[Curve], x: str, y: str, percent: bool = False, log: bool = False) -> str:
    """Draw curves over one another.

    Args:
        title: for those who cannot see it.
        lines: what to draw.
        x: label of the axis.
        y: likewise.
        percent: whether y is a share.
        log: whether y is seen by its orders of magnitude; what is not above 0 is left out.

    Returns:
        An ``svg`` element.
    """
    names = [line.name for line in lines if line.name]
    columns = _columns(names)
    rows = -(-len(names) // columns) if len(lines) > 1 else 0

    def draw(figure: Figure, axes: Axes) -> None:
        # Five colours with whole lines, then the same dotted: so ten curves differ.
        styles = cycle("-" * 5 + ":" * 5)
        for line, colour, style in zip(lines, cycle(COLOURS), styles, strict=False):
            points = _thinned(line.points)
            marker = "o" if len(points) < 25 else ""
            xs, ys = [point[0] for point in points], [point[1] for point in points]
            look: dict[str, Any] = {"color": line.colour or colour, "linestyle": line.style or style, "linewidth": 1.5}
            axes.plot(xs, ys, marker=marker, markersize=3, label=line.name, **look)
        axes.set(xlabel=x, ylabel=y)
        axes.grid(color=INK, alpha=0.15, linewidth=0.6)
        if percent:
            axes.yaxis.set_major_formatter(PercentFormatter(1.0))
        if log and any(y > 0 for line in lines for _, y in line.points):
            _by_magnitude(axes)
        if rows:
            figure.legend(loc="outside lower center", ncols=columns, handlelength=1.8, columnspacing=1.0)

    return svg(title, (WIDTH, 210 + 16 * rows), draw)


def _columns(names: Sequence[str]) -> int:
    """Return how many columns a legend has room for."""
    for columns in range(min(4, len(names)), 1, -1):
        # As a legend parts them.  The page has a font of its own, so how wide a letter is there is not known.
        parts = np.array_split(np.array(names), columns)
        if sum(_SAMPLE + _LETTER * max(map(len, part)) for part in parts) <= WIDTH:
            return columns
    return 1


def _by_magnitude(axes: Axes) -> None:
    axes.set_yscale("log", nonpositive="mask")
    low, high = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    # Powers of ten would be formulas.
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(NullFormatter())


def bars(title: str, counts: Sequence[int], most: int) -> str:
    """Draw how large a share of the whole each count is, small enough for several beside one another.

    Args:
        title: for those who cannot see it.
        counts: of the values 0, 1, ...
        most: the largest value that has room.

    Returns:
        An ``svg`` element.
    """

    def draw(figure: Figure, axes: Axes) -> None:
        axes.bar(range(len(counts)), [count / sum(counts) for count in counts], color=BLUE, width=0.8)
        axes.set(xlim=(-0.6, most + 0.6), ylim=(0, 1), yticks=(0, 0.5, 1))
        axes.xaxis.set_major_locator(MaxNLocator(5, integer=True, min_n_ticks=1))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    return svg(title, (170, 110), draw)


def histogram(title: str, counts: Sequence[int], limit: tuple[str, int], x: str, y: str) -> str:
    """Draw how large a share of the whole each count is, and which values are above a limit.

    Args:
        title: for those who cannot see it.
        counts: of the values 0, 1, ...
        limit: name, and value above which bars have another colour.
        x: label of the axis.
        y: likewise.

    Returns:
        An ``svg`` element.
    """
    name, most = limit

    def draw(figure: Figure, axes: Axes) -> None:
        colours = [RED if value > most else BLUE for value in range(len(counts))]
        axes.bar(range(len(counts)), [count / sum(counts) for count in counts], color=colours, width=0.8)
        axes.axvline(most + 0.5, color=INK, alpha=0.5, linewidth=0.8, linestyle="--")
        top = axes.get_xaxis_transform()
        axes.annotate(name, (most + 0.5, 1), (-3, 0), xycoords=top, textcoords="offset points", ha="right", va="top")
        axes.set(xlabel=x, ylabel=y, xlim=(-0.6, max(len(counts) - 1, most) + 0.6))
        axes.xaxis.set_major_locator(MaxNLocator(9, integer=True))
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))

    return svg(title, (WIDTH, 210), draw)


def svg(title: str, size: tuple[int, int], draw: Callable[[Figure, Axes], None]) -> str:
    """Draw a picture.

    Args:
        title: for those who cannot see it; tells pictures of one page apart.
        size: width and height in points.
        draw: fills the figure and its axes.

    Returns:
        An ``svg`` element without a size of its own.
    """
    with _style(title):
        # Without pyplot, which keeps figures in a global list and may want a display.
        figure = Figure(figsize=(size[0] / 72, size[1] / 72), layout="constrained")
        draw(figure, figure.subplots())
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True)
    return _inline(file.getvalue(), title, size)


@contextmanager
def _style(salt: str) -> Iterator[None]:
    ink = ("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color")
    style: dict[Any, Any] = {
        **dict.fromkeys(ink, INK),
        # Text stays text: the page's own font, to be searched and read aloud.
        "svg.fonttype": "none",
        # Else names within the picture are drawn anew each time, and two pictures of one page may share one.
        "svg.hashsalt": salt,
        # A name with two dollars in it would be typeset as a formula.
        "text.parse_math": False,
        "font.size": FONT,
        "legend.fontsize": FONT,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.linewidth": 0.6,
        "legend.frameon": False,
    }
    with matplotlib.rc_context(style):
        yield


def _inline(document: str, title: str, size: tuple[int, int]) -> str:
    """Make an element of a document: without a prolog, style sheet and names that nobody refers to."""
    inside = document[document.index(">", document.index("<svg")) + 1 :]
    for useless in (r"<metadata>.*?</metadata>", r"<style.*?</style>"):
        inside = re.sub(useless, "", inside, flags=re.DOTALL)
    used = set(re.findall(r"""(?:url\(|href=")#([^)"]+)""", inside))
    inside = re.sub(r' id="([^"]*)"', lambda match: match[0] if match[1] in used else "", inside)
    inside = re.sub(r"\s*\n\s*", "\n", inside)
    for colour, name in ON_PAGE.items():
        inside = inside.replace(colour, name)
    head = f'<svg role="img" aria-label="{html.escape(title)}" viewBox="0 0 {size[0]} {size[1]}">'
    return head + inside.strip()


def _thinned(points: Points) -> Points:
    step = -(-len(points) // MOST_POINTS)
    if step <= 1:
        return points
    chunks = (points[i : i + step] for i in range(0, len(points), step))
    return [(fmean(x for x, _ in chunk), fmean(y for _, y in chunk)) for chunk in chunks]
