"""A timeline as text, for its way to the process that writes the trace.

Does not know: who noted it, what becomes of it.
"""

import json
from collections.abc import Iterable, Mapping
from typing import Any

from stalegrid.errors import ProtocolError
from stalegrid.observe import Span, Timeline
from stalegrid.programs import Edge, Kind, Unit


def as_text(timeline: Timeline) -> bytes:
    """Return a timeline of real time as JSON."""
    # Text, since it comes over a socket.
    spans = [[*s.unit, s.kind.value, s.index, s.start, s.end] for s in timeline.spans]
    return json.dumps([spans, _rows(timeline.departures), _rows(timeline.arrivals)]).encode()


def from_text(text: bytes) -> Timeline:
    """Read a timeline.

    Raises:
        ProtocolError: it is none.
    """
    try:
        spans, departures, arrivals = json.loads(text)
        return Timeline(
            [Span(Unit(int(s), int(k)), Kind(kind), int(i), int(a), int(b)) for s, k, kind, i, a, b in spans],
            _times(departures),
            _times(arrivals),
        )
    except (ValueError, TypeError, RecursionError) as problem:
        raise ProtocolError(f"what a process noted cannot be read: {problem}") from problem


def _rows(times: Mapping[tuple[Edge, int], int]) -> list[list[Any]]:
    return [[edge.name, *edge.source, *edge.target, index, time] for (edge, index), time in times.items()]


def _times(rows: Iterable[Any]) -> dict[tuple[Edge, int], int]:
    return {
        (Edge(str(name), Unit(int(s), int(k)), Unit(int(r), int(q))), int(index)): int(time)
        for name, s, k, r, q, index, time in rows
    }
