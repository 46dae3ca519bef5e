import pytest

from benchmarks import breakdown
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import Unit

BELOW, UNIT = Unit(0, 0), Unit(0, 1)
PERIOD = 10_000_000_000  # of an update, in nanoseconds
SECOND = 1_000_000_000


def periodic(updates: int) -> Timeline:
    """Each update: 2 s of a message under way, 3 s of nothing, 4 s forward, 1 s update; the first takes 100 s more."""
    timeline, edge = Timeline(), Edge("activation", BELOW, UNIT)
    for n in range(updates):
        start = n * PERIOD + 100 * SECOND * (n > 0)
        timeline.departures[edge, n] = start + 3 * SECOND
        timeline.arrivals[edge, n] = start + 5 * SECOND
        timeline.spans.append(Span(UNIT, Kind.FORWARD, n, start + 5 * SECOND, start + 9 * SECOND))
        timeline.spans.append(Span(UNIT, Kind.UPDATE, n, start + 9 * SECOND, start + 10 * SECOND))
    return timeline


def test_a_units_time_is_taken_from_update_to_update_without_the_first_and_the_last_ones() -> None:
    spent = breakdown._seconds(periodic(10), UNIT)
    assert spent == pytest.approx({"busy": 5.0, "waiting": 3.0, "communicating": 2.0}, rel=1e-12)


def test_the_parts_add_up_to_the_whole() -> None:
    parts = breakdown._apart({"busy": 5.0, "waiting": 3.0, "communicating": 2.0}, 3.5, 4.0)
    assert parts == {
        "whole": 10.0,
        "work": 3.5,
        "competition": 0.5,
        "overhead": 1.0,
        "messages": 2.0,
        "bubble": 3.0,
    }
