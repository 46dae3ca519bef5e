"""What was executed when: spans of actions and flights of messages, in real or in virtual nanoseconds.

Does not know: engines, clocks, files.

Whoever executes keeps it in memory, and one process gathers all parts at the end of a run.  A run that fails leaves no
timeline; its metrics are there.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from stalegrid.programs import Action, Edge, Kind, Tag, Unit


@dataclass(frozen=True, slots=True)
class Span:
    """A unit executed an action from ``start`` to ``end``."""

    unit: Unit
    kind: Kind
    index: int
    start: int
    end: int


@dataclass(frozen=True, slots=True)
class Flight:
    """Message ``index`` of an edge left at ``left`` and was there at ``arrived``."""

    edge: Edge
    index: int
    left: int
    arrived: int


class Recorder(Protocol):
    """Takes what happens, in any order."""

    def executed(self, unit: Unit, action: Action, start: int, end: int) -> None:
        """Take an action that was executed."""

    def left(self, tag: Tag, time: int) -> None:
        """Take the departure of a message."""

    def arrived(self, tag: Tag, time: int) -> None:
        """Take the arrival of a message."""


@dataclass
class Timeline:
    """Keeps everything.

    Attributes:
        spans: of actions that took time or are worth a mark: all of them.
        departures: of messages, by edge and index.
        arrivals: likewise.
        virtual: whether its time is.
    """

    spans: list[Span] = field(default_factory=list)
    departures: dict[tuple[Edge, int], int] = field(default_factory=dict)
    arrivals: dict[tuple[Edge, int], int] = field(default_factory=dict)
    virtual: bool = False

    def executed(self, unit: Unit, action: Action, start: int, end: int) -> None:
        """See :class:`Recorder`."""
        self.spans.append(Span(unit, action.kind, action.index, start, end))

    def left(self, tag: Tag, time: int) -> None:
        """See :class:`Recorder`."""
        self.departures[tag.edge, tag.index] = time

    def arrived(self, tag: Tag, time: int) -> None:
        """See :class:`Recorder`."""
        self.arrivals[tag.edge, tag.index] = time

    @property
    def flights(self) -> list[Flight]:
        """Messages of which both ends are known, in the order in which they left."""
        both = ((key, left) for key, left in self.departures.items() if key in self.arrivals)
        return sorted((Flight(*key, left, self.arrivals[key]) for key, left in both), key=lambda f: f.left)

    @classmethod
    def joined(cls, parts: "Iterable[Timeline]") -> "Timeline":
        """Return one timeline of what several processes saw, from the first start on, spans in their order in time."""
        whole = cls()
        for part in parts:
            whole.spans += part.spans
            whole.departures |= part.departures
            whole.arrivals |= part.arrivals
        # Processes know the time of day only; a trace begins at 0.
        zero = min((s.start for s in whole.spans), default=0)
        spans = (Span(s.unit, s.kind, s.index, s.start - zero, s.end - zero) for s in whole.spans)
        whole.spans = sorted(spans, key=_begin)
        whole.departures = {key: time - zero for key, time in whole.departures.items()}
        whole.arrivals = {key: time - zero for key, time in whole.arrivals.items()}
        return whole


def _begin(span: Span) -> tuple[int, int, Unit]:
    return span.start, span.end, span.unit
