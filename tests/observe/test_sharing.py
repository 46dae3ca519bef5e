import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.observe.sharing import Share, by_unit, gaps, shares, waits
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import OBSERVER, Unit, learner, server

A, B = Unit(0, 0), Unit(0, 1)
UP, DOWN = Edge("activation", A, B), Edge("gradient", B, A)


def busy(unit: Unit, *times: tuple[int, int]) -> list[Span]:
    return [Span(unit, Kind.FORWARD, i, start, end) for i, (start, end) in enumerate(times)]


def of(timeline: Timeline, unit: Unit) -> tuple[float, float, float]:
    (share,) = (s for s in shares(timeline) if s.unit == unit)
    return share.busy, share.waiting, share.communicating


def test_two_units_by_hand() -> None:
    timeline = Timeline([*busy(B, (20, 50), (50, 100)), *busy(A, (0, 10), (40, 60))])
    timeline.departures = {(UP, 0): 10, (DOWN, 0): 25}
    timeline.arrivals = {(UP, 0): 20, (DOWN, 0): 35}
    assert shares(timeline) == [
        Share(A, busy=0.3, waiting=0.6, communicating=0.1),
        Share(B, busy=0.8, waiting=0.1, communicating=0.1),
    ]


@pytest.mark.parametrize(
    ("left", "arrived", "communicating"),
    [
        (20, 60, 0.4),  # the whole gap and no more
        (5, 60, 0.4),  # left before the gap
        (5, 40, 0.2),  # was there before the action began
        (50, 60, 0.1),
        (5, 20, 0.0),  # arrived as the gap began
        (5, 19, 0.0),
        (40, 61, 0.0),  # arrived after the action began: another action needed it
    ],
)
def test_the_part_of_a_gap_in_which_its_message_was_under_way(left: int, arrived: int, communicating: float) -> None:
    timeline = Timeline(busy(A, (0, 20), (60, 100)), {(DOWN, 0): left}, {(DOWN, 0): arrived})
    assert of(timeline, A) == pytest.approx((0.6, 0.4 - communicating, communicating))


def test_the_latest_message_within_the_gap_released_the_action() -> None:
    timeline = Timeline(busy(A, (0, 20), (60, 100)))
    timeline.departures = {(DOWN, 0): 20, (DOWN, 1): 50, (DOWN, 2): 30}
    timeline.arrivals = {(DOWN, 0): 45, (DOWN, 1): 55, (DOWN, 2): 70}
    assert of(timeline, A) == (0.6, 0.35, 0.05)


def test_of_messages_that_arrive_together_the_one_longest_under_way_counts() -> None:
    timeline = Timeline(busy(A, (0, 20), (60, 100)))
    timeline.departures = {(DOWN, 0): 50, (DOWN, 1): 40}
    timeline.arrivals = {(DOWN, 0): 60, (DOWN, 1): 60}
    assert of(timeline, A) == (0.6, 0.2, 0.2)


def test_messages_to_others_do_not_count() -> None:
    timeline = Timeline(busy(A, (0, 20), (60, 100)), {(UP, 0): 20}, {(UP, 0): 60})
    assert of(timeline, A) == (0.6, 0.4, 0.0)


def test_a_message_of_which_an_end_is_unknown_does_not_count() -> None:
    timeline = Timeline(busy(A, (0, 20), (60, 100)), {(DOWN, 0): 20}, {(DOWN, 1): 60})
    assert of(timeline, A) == (0.6, 0.4, 0.0)


def test_each_gap_has_its_own_message() -> None:
    timeline = Timeline(busy(A, (10, 20), (40, 50), (50, 50), (80, 100)))
    timeline.departures = {(DOWN, 0): 4, (DOWN, 1): 30, (DOWN, 2): 60}
    timeline.arrivals = {(DOWN, 0): 9, (DOWN, 1): 40, (DOWN, 2): 75}
    assert of(timeline, A) == (0.4, 0.3, 0.3)


def test_the_observer_has_no_share_and_does_not_prolong_the_run() -> None:
    edge = Edge("report", A, OBSERVER)
    spans = [*busy(A, (0, 50)), *busy(OBSERVER, (60, 900))]
    assert shares(Timeline(spans, {(edge, 0): 50}, {(edge, 0): 60})) == [Share(A, 1.0, 0.0, 0.0)]


def test_servers_come_before_learners() -> None:
    units = [learner(1), server(1), OBSERVER, learner(0), server(0)]
    timeline = Timeline([s for unit in units for s in busy(unit, (0, 10))])
    assert [share.unit for share in shares(timeline)] == [server(0), server(1), learner(0), learner(1)]


def test_a_server_that_waits_for_a_gradient_is_communicating_while_it_is_under_way() -> None:
    edge = Edge("push", learner(0), server(0))
    timeline = Timeline([*busy(learner(0), (0, 20)), *busy(server(0), (0, 10), (40, 100))])
    timeline.departures, timeline.arrivals = {(edge, 0): 20}, {(edge, 0): 40}
    assert of(timeline, server(0)) == (0.7, 0.1, 0.2)


def test_who_waited_for_whom() -> None:
    timeline = Timeline(
        [*busy(A, (0, 10), (50, 60), (90, 100)), *busy(B, (20, 40), (70, 80)), *busy(OBSERVER, (95, 99))]
    )
    verdict, report = Edge("verdict", OBSERVER, A), Edge("report", A, OBSERVER)
    flights = {
        (UP, 0): (10, 20),
        (UP, 1): (60, 65),  # could have gone on from there
        (DOWN, 0): (40, 50),
        (DOWN, 1): (40, 45),  # was there before the other
        (verdict, 0): (70, 85),
        (report, 0): (20, 90),
    }
    timeline.departures = {key: left for key, (left, _) in flights.items()}
    timeline.arrivals = {key: arrived for key, (_, arrived) in flights.items()}
    assert waits(timeline) == {(A, B): 40, (A, OBSERVER): 25, (B, A): 20 + 25}


def test_who_was_given_a_message_before_waited_for_nobody() -> None:
    assert waits(Timeline(busy(A, (0, 20), (60, 100)), {(DOWN, 0): 5}, {(DOWN, 0): 19})) == {}
    assert waits(Timeline()) == {}


def test_nothing_has_no_shares() -> None:
    assert shares(Timeline()) == []
    assert shares(Timeline(busy(A, (0, 0)))) == []


def test_spans_of_a_unit_come_in_the_order_in_which_they_were_executed() -> None:
    names = [(Kind.BACKWARD, 0, 10), (Kind.UPDATE, 10, 10), (Kind.REPORT, 10, 10), (Kind.FORWARD, 10, 20)]
    spans = [Span(B, kind, 0, start, end) for kind, start, end in names]
    first = Span(B, Kind.SHARE, 0, 0, 0)
    found = by_unit(Timeline([*spans, first, *busy(A, (3, 4))]))
    assert list(found) == [A, B]
    assert found[B] == [first, *spans]


def test_gaps_lie_between_spans() -> None:
    assert list(gaps(busy(A, (5, 10), (10, 12), (15, 15), (15, 20)))) == [(12, 15)]


@given(st.lists(st.integers(0, 30), min_size=2, max_size=12), st.lists(st.tuples(*[st.integers(0, 200)] * 2)))
def test_shares_are_shares(lengths: list[int], flights: list[tuple[int, int]]) -> None:
    times = [sum(lengths[:i]) for i in range(len(lengths) + 1)]
    timeline = Timeline(busy(A, *zip(times[1::2], times[2::2], strict=False)))
    for i, flight in enumerate(flights):
        timeline.departures[DOWN, i], timeline.arrivals[DOWN, i] = min(flight), max(flight)
    for share in shares(timeline):
        parts = (share.busy, share.waiting, share.communicating)
        assert sum(parts) == pytest.approx(1)
        assert all(-1e-12 <= part <= 1 for part in parts)
