"""Who has which labels, where groups or learners have samples of their own: a table and a picture.

Does not know: folders, how samples were dealt.
"""

from collections.abc import Iterator, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from stalegrid.observe import Record
from stalegrid.report.figures import BLUE, WIDTH, svg
from stalegrid.report.page import figures, section, table
from stalegrid.report.told import Told

MOST_COLUMNS = 12
"""Labels of which a table says every count; of more it says how many there are."""

MOST_LABELS, MOST_GROUPS = 60, 32
"""That are drawn."""

_NOTE = (
    "How many samples of which label each has for its own; circles are as large as the counts. Each draws its batches "
    "from its own samples, pass after pass."
)


def dealt_section(run: Told) -> str:
    """Return the part of a page; nothing where samples are shared out evenly."""
    dealt = run.summary.get("dealt")
    return dealt_of(dealt, "group" if run.team is None else "learner") if dealt else ""


def dealt_of(dealt: Record, who: str) -> str:
    """Return the part of a page.

    Args:
        dealt: what the summary says: ``labels``, and for each group the counts of these in ``groups``.
        who: has them: group or learner.
    """
    labels, groups = dealt["labels"], dealt["groups"]
    title = f"Samples of each label by {who}"
    drawn = labels[:MOST_LABELS], [counts[:MOST_LABELS] for counts in groups[:MOST_GROUPS]]
    cut = len(labels) > MOST_LABELS or len(groups) > MOST_GROUPS
    only = f" The first {len(drawn[0])} labels of the first {len(drawn[1])} {who}s are drawn." if cut else ""
    picture = figures([(title, circles(title, *drawn, who))])
    return section("Data", [*picture, _table(labels, groups, who)], _NOTE + only)


def circles(title: str, labels: Sequence[int], groups: Sequence[Sequence[int]], who: str) -> str:
    """Draw a circle for each count, as large as that.

    Args:
        title: for those who cannot see it.
        labels: of the columns.
        groups: counts of each row, one a label.
        who: has them.

    Returns:
        An ``svg`` element.
    """
    most = max(max(counts) for counts in groups) or 1
    height = 60 + 18 * len(groups)
    # The largest circle fills its cell: in points, 50 beside the axes.
    room = min((WIDTH - 50) / len(labels), (height - 50) / len(groups)) * 0.9

    def draw(figure: Figure, axes: Axes) -> None:
        places = [(x, y, n) for y, counts in enumerate(groups) for x, n in enumerate(counts) if n]
        axes.scatter(
            [x for x, _, _ in places],
            [y for _, y, _ in places],
            [room**2 * n / most for _, _, n in places],
            color=BLUE,
            linewidths=0,
        )
        axes.set(xlabel="label", ylabel=who, xlim=(-0.6, len(labels) - 0.4), ylim=(len(groups) - 0.4, -0.6))
        if len(labels) <= MOST_COLUMNS:
            axes.set_xticks(range(len(labels)), list(map(str, labels)))
        else:
            axes.set_xlabel("label, by its place")
        axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))

    return svg(title, (WIDTH, height), draw)


def _table(labels: Sequence[int], groups: Sequence[Sequence[int]], who: str) -> str:
    if len(labels) <= MOST_COLUMNS:
        headings = [who, "samples", *(f"label {label}" for label in labels)]
        return table(headings, _whole(groups), numbers=True)
    return table([who, "samples", "labels", "most frequent", "its share"], _short(labels, groups), numbers=True)


def _whole(groups: Sequence[Sequence[int]]) -> Iterator[list[str]]:
    for s, counts in enumerate(groups):
        yield [str(s), f"{sum(counts):,}", *(f"{count:,}" for count in counts)]


def _short(labels: Sequence[int], groups: Sequence[Sequence[int]]) -> Iterator[list[str]]:
    for s, counts in enumerate(groups):
        most = max(counts)
        there = sum(map(bool, counts))
        yield [str(s), f"{sum(counts):,}", str(there), str(labels[counts.index(most)]), f"{most / sum(counts):.1%}"]
