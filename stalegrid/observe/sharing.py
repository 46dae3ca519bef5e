"""How units spent their time: busy, waiting, or waiting for a message that was under way.

Does not know: what actions compute, files, pictures.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

from stalegrid.observe.timeline import Flight, Span, Timeline
from stalegrid.programs import OBSERVER, Unit


@dataclass(frozen=True, slots=True)
class Share:
    """How one unit spent the time from 0 to the last end of any unit; the three add up to 1.

    Attributes:
        unit: which.
        busy: it executed actions.
        waiting: it did nothing, and the message that released it had not left or had already arrived.
        communicating: it did nothing, and the message that released it was under way.
    """

    unit: Unit
    busy: float
    waiting: float
    communicating: float


class Gap(NamedTuple):
    """A unit executed nothing from ``start`` to ``end``."""

    start: int
    end: int


def by_unit(timeline: Timeline) -> dict[Unit, list[Span]]:
    """Return the spans of every unit in the order in which it executed them, units in canonical order."""
    found: dict[Unit, list[Span]] = {}
    for span in sorted(timeline.spans, key=lambda s: (s.start, s.end)):
        found.setdefault(span.unit, []).append(span)
    return dict(sorted(found.items()))


def gaps(spans: Sequence[Span]) -> Iterator[Gap]:
    """Yield the times between the spans of one unit in which it executed nothing."""
    return (Gap(before.end, after.start) for before, after in pairwise(spans) if before.end < after.start)


def shares(timeline: Timeline) -> list[Share]:
    """Return how every unit that trains spent its time.

    A gap before an action is communication as long as the message that released the action was under way: the latest
    that arrived within the gap.  All other gaps are waiting, and so is the time after a unit's last action.

    Args:
        timeline: of a run that began at 0.

    Returns:
        One share a unit, in canonical order; none where nothing took time.  The observer is left out.
    """
    spans = {unit: done for unit, done in by_unit(timeline).items() if unit != OBSERVER}
    total = max((span.end for done in spans.values() for span in done), default=0)
    if not total:
        return []
    inbound = _inbound(timeline)
    return [_share(unit, done, inbound.get(unit, []), total) for unit, done in spans.items()]


def waits(timeline: Timeline) -> dict[tuple[Unit, Unit], int]:
    """Return who waited for whom how long, in nanoseconds: the two ends of messages that released an action.

    A unit waited for a message from when it had nothing else to do until that had arrived, whether it was computed or
    under way meanwhile.  Observers wait for nobody here.

    Args:
        timeline: of a run that began at 0.

    Returns:
        By the unit that waited and the one that it waited for.
    """
    found: dict[tuple[Unit, Unit], int] = {}
    inbound = _inbound(timeline)
    for unit, spans in by_unit(timeline).items():
        for gap, flight in _released(spans, inbound.get(unit, [])) if unit != OBSERVER else ():
            if (length := flight.arrived - gap.start) > 0:
                pair = unit, flight.edge.source
                found[pair] = found.get(pair, 0) + length
    return found


def _inbound(timeline: Timeline) -> dict[Unit, list[Flight]]:
    """Return what arrived at each unit, in that order."""
    found: dict[Unit, list[Flight]] = {}
    # Of those that arrive together, the one that left last comes first and is passed over: the longest flight counts.
    for flight in sorted(timeline.flights, key=lambda flight: (flight.arrived, -flight.left)):
        found.setdefault(flight.edge.target, []).append(flight)
    return found


def _released(spans: Sequence[Span], inbound: Sequence[Flight]) -> Iterator[tuple[Gap, Flight]]:
    """Yield the gaps of a unit, each with the latest message that was there at its end."""
    arrivals = [flight.arrived for flight in inbound]
    for gap in (Gap(0, spans[0].start), *gaps(spans)):
        latest = bisect_right(arrivals, gap.end) - 1
        if latest >= 0:
            yield gap, inbound[latest]


def _share(unit: Unit, spans: Sequence[Span], inbound: Sequence[Flight], total: int) -> Share:
    busy = sum(span.end - span.start for span in spans)
    communicating = sum(
        max(0, flight.arrived - max(gap.start, flight.left)) for gap, flight in _released(spans, inbound)
    )
    return Share(unit, busy / total, (total - busy - communicating) / total, communicating / total)
