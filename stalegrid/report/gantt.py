"""The picture of a timeline: a row a unit, a bar an action, a line a message.

Does not know: folders, how units spent their time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from stalegrid.observe import Span, Timeline, by_unit, names
from stalegrid.programs import OBSERVER, Kind, Unit
from stalegrid.report.figures import BLUE, GREEN, GREY, INK, NAVY, PAPER, PURPLE, RED, WIDTH, svg

MOST_UNITS = 16
"""That are drawn."""

MOST_BARS = 2_500
"""That are drawn, if one round has fewer."""

ROUNDS = 5
"""Updates of a unit that a wide picture shows."""

WIDE = 1060
"""Points, for a picture that has a page's width for itself."""

_PARTS = (
    ("forward", BLUE, (Kind.FORWARD,)),
    ("forward again", NAVY, (Kind.RECOMPUTE,)),
    ("backward", RED, (Kind.BACKWARD,)),
    ("update", GREEN, (Kind.UPDATE,)),
    ("exchange", PURPLE, (Kind.SHARE, Kind.REDUCE, Kind.MIX)),
    ("take", PURPLE, (Kind.TAKE,)),
    ("answer", NAVY, (Kind.ANSWER,)),
    ("drop or stop", INK, (Kind.DROP, Kind.STOP)),
    ("save or load", INK, (Kind.KEEP, Kind.SAVE, Kind.LOAD, Kind.REVIVE, Kind.DISCARD)),
    ("report", GREY, (Kind.REPORT, Kind.SNAPSHOT, Kind.COLLECT, Kind.EVALUATE, Kind.DIAGNOSE, Kind.JUDGE, Kind.HEED)),
)
"""Name, colour and kinds of bars; servers and learners do nothing of what else has their colours."""

_NAMES = {kind: name for name, _, kinds in _PARTS for kind in kinds}
_COLOURS = {kind: colour for _, colour, kinds in _PARTS for kind in kinds}
_SCALES = ((1e9, "s"), (1e6, "ms"), (1e3, "µs"))
_LABEL = 9


@dataclass(frozen=True)
class Window:
    """What of a timeline is drawn.

    Args:
        units: one a row.
        spans: of these units that took time, within the window.
        start: in nanoseconds.
        end: likewise.
    """

    units: Sequence[Unit]
    spans: Sequence[Span]
    start: int
    end: int


def steady(timeline: Timeline, rounds: int = ROUNDS) -> Window:
    """Return a window from the middle of a run.

    Args:
        timeline: of the run, with at least one unit that trains.
        rounds: updates of the first unit that makes any, fewer where there are too many actions to draw; a run of
            fewer updates is shown whole.
    """
    spans = {unit: done for unit, done in by_unit(timeline).items() if unit != OBSERVER}
    units = list(spans)[:MOST_UNITS]
    drawn = [span for unit in units for span in spans[unit] if span.start < span.end]
    updates = next(filter(None, (_updates(spans[unit]) for unit in units)), [])
    start, end = 0, max((span.end for span in drawn), default=0)
    if len(updates) > rounds:
        first = (len(updates) - rounds) // 2
        start, end = updates[first], updates[first + rounds]
    inside = [span for span in drawn if span.start < end and start < span.end]
    if len(inside) > MOST_BARS and rounds > 1:
        # Fewer rounds rather than every other bar.
        return steady(timeline, rounds - 1)
    return Window(units, inside, start, end)


def _updates(spans: Sequence[Span]) -> list[int]:
    """Return when updates ended."""
    return [span.end for span in spans if span.kind is Kind.UPDATE]


def gantt(title: str, timeline: Timeline, window: Window, width: int = WIDE) -> str:
    """Draw a window of a timeline.

    Args:
        title: for those who cannot see it.
        timeline: whose.
        window: what of it.
        width: in points; a narrow picture has no messages.

    Returns:
        An ``svg`` element.
    """
    scale, unit = next((s for s in _SCALES if window.end - window.start >= 2 * s[0]), _SCALES[-1])
    places = _places(window.units)
    columns = 3 if width == WIDTH else 7

    def draw(figure: Figure, axes: Axes) -> None:
        for span in window.spans:
            _bar(axes, span, places[span.unit], window, scale, width)
        handles: list[Patch | Line2D] = list(_legend(window.spans))
        if width > WIDTH and (messages := list(_messages(timeline, window, places, scale))):
            axes.add_collection(LineCollection(messages, colors=INK, alpha=0.5, linewidths=0.8))
            handles.append(Line2D([], [], color=INK, alpha=0.5, linewidth=0.8, label="message"))
        axes.set(xlim=(0, (window.end - window.start) / scale), ylim=(max(places.values()) + 0.6, -0.6))
        axes.set_yticks(list(places.values()), list(names(window.units).values()))
        axes.tick_params(axis="y", length=0)
        axes.set_xlabel(f"{unit} after {window.start / 1e9:,.6g} s")
        figure.legend(handles=handles, loc="outside upper left", ncols=columns, handlelength=1.2)

    rows = -(-(len(_PARTS) + 1) // columns)
    return svg(title, (width, round(22 * (max(places.values()) + 1)) + 50 + 17 * rows), draw)


def _places(units: Sequence[Unit]) -> dict[Unit, float]:
    """Return the height of each row, with some room between groups."""
    groups = sorted({unit.group for unit in units})
    return {unit: row + 0.4 * groups.index(unit.group) for row, unit in enumerate(units)}


def _bar(axes: Axes, span: Span, place: float, window: Window, scale: float, width: int) -> None:
    start, end = max(span.start, window.start), min(span.end, window.end)
    left, length = (start - window.start) / scale, (end - start) / scale
    axes.barh(place, length, 0.8, left, color=_COLOURS[span.kind], edgecolor=PAPER, linewidth=0.4)
    label = f"{span.kind.value}{span.index}"
    # 60 points are for the names of the rows; a letter is about three quarters as wide as high.
    room = (width - 60) * (end - start) / (window.end - window.start)
    if room > 0.75 * _LABEL * len(label):
        axes.text(left + length / 2, place, label, ha="center", va="center_baseline", fontsize=_LABEL, color=PAPER)


def _legend(spans: Sequence[Span]) -> Iterator[Patch]:
    shown = {_NAMES[span.kind] for span in spans}
    return (Patch(color=colour, label=name) for name, colour, _ in _PARTS if name in shown)


def _messages(
    timeline: Timeline, window: Window, places: dict[Unit, float], scale: float
) -> Iterator[list[tuple[float, float]]]:
    """Yield the lines of messages between stages; those between groups would cross the rows of others."""
    for flight in timeline.flights:
        source, target = flight.edge.source, flight.edge.target
        inside = window.start <= flight.left and flight.arrived <= window.end
        if inside and source.group == target.group and {source, target} <= places.keys():
            # From the edge of one row to the near edge of the other.
            aside = 0.4 if target > source else -0.4
            left, arrived = flight.left - window.start, flight.arrived - window.start
            yield [(left / scale, places[source] + aside), (arrived / scale, places[target] - aside)]
