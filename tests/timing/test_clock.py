"""Dates against dates made by hand, and against a simulation that knows nothing of maxima: an event queue."""

import heapq
import random
from collections import defaultdict, deque
from collections.abc import Callable, Generator, Iterable
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import count
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.observe.timeline import Span, Timeline
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.lateral import NoLateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.programs.ties import GRADIENT, WEIGHTS, Tie, Ties
from stalegrid.programs.watch import Watch
from stalegrid.timing.clock import Clock, TimeModel, message_bytes
from stalegrid.timing.costs import Cost, ties_of
from stalegrid.timing.disturbances import Disturbances, Jitter, Outage
from stalegrid.timing.estimating import estimate
from stalegrid.timing.links import Link
from tests.programs.walking import needed

MS = 1_000_000


def exchanged_in(program: Program) -> Callable[[Edge, int], int]:
    """Return what groups exchange: parameters, or the parts of an all-reduce."""
    return lambda edge, parameters: parameters // (program.grid.groups if edge.name.startswith("gradient-") else 1)


def model_of(program: Program, stages: Iterable[Cost], handling: float = 0.0, **disturbed: Any) -> TimeModel:
    costs = tuple(stages)
    weigh = message_bytes(costs, program, exchanged_in(program))
    return TimeModel(costs, program.schedule.micro_batches, handling, weigh, Disturbances(**disturbed))


def dated(program: Program, model: TimeModel) -> Timeline:
    timeline = Timeline()
    estimate(program, model, timeline)
    return timeline


def spans_of(timeline: Timeline, group: int, stage: int) -> list[str]:
    """Return what a unit did, as ``F0 1.5-2.5`` in milliseconds."""
    spans = [s for s in timeline.spans if s.unit == Unit(group, stage)]
    return [f"{s.kind.value}{s.index} {s.start / MS:g}-{s.end / MS:g}" for s in spans]


def lines(text: str) -> list[str]:
    return [entry.strip() for entry in text.split(",")]


def test_three_stages_run_as_computed_by_hand() -> None:
    program = Program(Grid(1, 3), stale([4, 2, 0]), 6)
    timeline = dated(program, model_of(program, [Cost(forward=1, backward=2)] * 3, link=Link(0.5)))
    assert spans_of(timeline, 0, 0) == lines(
        "F0 0-1, F1 1-2, F2 2-3, F3 3-4, F4 4-5, B0 9-11, U0 11-11, F5 11-12, B1 12-14, U1 14-14, B2 15-17, U2 17-17, "
        "B3 18-20, U3 20-20, B4 21-23, U4 23-23, B5 24-26, U5 26-26"
    )
    assert spans_of(timeline, 0, 1) == lines(
        "F0 1.5-2.5, F1 2.5-3.5, F2 3.5-4.5, B0 6.5-8.5, U0 8.5-8.5, F3 8.5-9.5, B1 9.5-11.5, U1 11.5-11.5, "
        "F4 11.5-12.5, B2 12.5-14.5, U2 14.5-14.5, F5 14.5-15.5, B3 15.5-17.5, U3 17.5-17.5, B4 18.5-20.5, "
        "U4 20.5-20.5, B5 21.5-23.5, U5 23.5-23.5"
    )
    assert spans_of(timeline, 0, 2) == lines(
        "F0 3-4, B0 4-6, U0 6-6, F1 6-7, B1 7-9, U1 9-9, F2 9-10, B2 10-12, U2 12-12, F3 12-13, B3 13-15, U3 15-15, "
        "F4 15-16, B4 16-18, U4 18-18, F5 18-19, B5 19-21, U5 21-21"
    )
    assert all(isinstance(time, int) for span in timeline.spans for time in (span.start, span.end))
    first = Edge("activation", Unit(0, 0), Unit(0, 1))
    assert [timeline.departures[first, b] / MS for b in range(6)] == [1, 2, 3, 4, 5, 12]
    assert {timeline.arrivals[key] - left for key, left in timeline.departures.items()} == {MS // 2}


def test_ties_are_dated_by_the_links_between_stages() -> None:
    """A stage waits for the flight of a tie's message alone: of two parts, whichever takes longer to arrive."""
    edges = Edge(WEIGHTS, Unit(0, 0), Unit(0, 2)), Edge(GRADIENT, Unit(0, 2), Unit(0, 0))
    program = Program(Grid(1, 3), stale([4, 2, 0]), 6, ties=Ties((Tie((0, 2), ("w", "w")),)))
    plain = replace(program, ties=Ties())
    costs = [Cost(forward=1, backward=2)] * 3
    for latency in (0, 0.5):
        model = model_of(program, costs, link=Link(latency), lateral_link=Link(9))
        # Two hops through stage 1 take no less than one directly.
        assert dated(program, model).spans == dated(plain, model).spans
    slow = replace(model_of(program, costs, link=Link(0, 8)), nbytes=lambda edge: 4_000 * (edge in edges))
    timeline = dated(program, slow)
    for edge in edges:
        sent = [(edge, tag.index) for tag in needed(program, edge)]
        assert {timeline.arrivals[key] - timeline.departures[key] for key in sent} == {4 * MS}
    assert max(s.end for s in timeline.spans) > max(s.end for s in dated(plain, slow).spans)


def test_1f1b_runs_as_computed_by_hand() -> None:
    program = Program(Grid(1, 2), one_f_one_b(2, 2), 2)
    costs = [Cost(forward=2, backward=4, update=0.25)] * 2
    timeline = dated(program, model_of(program, costs, link=Link(0.5)))
    assert spans_of(timeline, 0, 0) == lines(
        "F0 0-1, F1 1-2, B0 5-7, B1 8-10, U0 10-10.25, F2 10.25-11.25, F3 11.25-12.25, B2 15.25-17.25, "
        "B3 18.25-20.25, U1 20.25-20.5"
    )
    assert spans_of(timeline, 0, 1) == lines(
        "F0 1.5-2.5, B0 2.5-4.5, F1 4.5-5.5, B1 5.5-7.5, U0 7.5-7.75, F2 11.75-12.75, B2 12.75-14.75, F3 14.75-15.75, "
        "B3 15.75-17.75, U1 17.75-18"
    )


def test_gpipe_runs_as_computed_by_hand() -> None:
    program = Program(Grid(1, 2), gpipe(2, 2), 1)
    timeline = dated(program, model_of(program, [Cost(forward=2, backward=4)] * 2))
    assert spans_of(timeline, 0, 0) == lines("F0 0-1, F1 1-2, B0 5-7, B1 7-9, U0 9-9")
    assert spans_of(timeline, 0, 1) == lines("F0 1-2, F1 2-3, B0 3-5, B1 5-7, U0 7-7")


def test_two_groups_all_reduce_as_computed_by_hand() -> None:
    program = Program(Grid(2, 1), gpipe(1, 1), 1, AllReduce(2))
    cost = Cost(forward=1, backward=2, update=0.25, mix=0.5, parameters=100_000)
    # A part of 50 kB leaves in 0.5 ms; unit (1,0) is half as fast.
    model = model_of(program, [cost], lateral_link=Link(1, 800), slow={Unit(1, 0): 2.0})
    timeline = dated(program, model)
    assert spans_of(timeline, 0, 0) == lines("F0 0-1, B0 1-3, S0 3-3, R0 7.5-8, M0 8.5-9, U0 9-9.25")
    assert spans_of(timeline, 1, 0) == lines("F0 0-2, B0 2-6, S0 6-6, R0 6-7, M0 9.5-10.5, U0 10.5-11")
    flights = {(f.edge.name, f.edge.source.group): (f.left / MS, f.arrived / MS) for f in timeline.flights}
    assert flights == {
        ("gradient-part", 0): (3, 4.5),
        ("gradient-part", 1): (6, 7.5),
        ("gradient-mean", 0): (8, 9.5),
        ("gradient-mean", 1): (7, 8.5),
    }


def test_combine_while_adapt_in_two_groups_of_two_stages_runs_as_computed_by_hand() -> None:
    rounds = Averaging(mixing_matrix("ring", 2), adapt_first=False, period=1, lag=0, updates=2)
    program = Program(Grid(2, 2), stale([2, 0]), 2, rounds)
    costs = [Cost(forward=1, backward=2, mix=0.5)] * 2
    links = {"link": Link(0.5), "lateral_link": Link(4)}
    timeline = dated(program, model_of(program, costs, slow={Unit(1, 0): 2.0}, **links))
    assert spans_of(timeline, 0, 0) == lines(
        "S0 0-0, F0 0-1, F1 1-2, B0 5-7, U0 7-7, M0 7-7.5, S1 7.5-7.5, B1 8.5-10.5, U1 10.5-10.5, M1 15-15.5"
    )
    assert spans_of(timeline, 0, 1) == lines(
        "S0 0-0, F0 1.5-2.5, B0 2.5-4.5, U0 4.5-4.5, M0 4.5-5, S1 5-5, F1 5-6, B1 6-8, U1 8-8, M1 10-10.5"
    )
    assert spans_of(timeline, 1, 0) == lines(
        "S0 0-0, F0 0-2, F1 2-4, B0 6-10, U0 10-10, M0 10-11, S1 11-11, B1 11-15, U1 15-15, M1 15-16"
    )
    assert spans_of(timeline, 1, 1) == lines(
        "S0 0-0, F0 2.5-3.5, B0 3.5-5.5, U0 5.5-5.5, M0 5.5-6, S1 6-6, F1 6-7, B1 7-9, U1 9-9, M1 9-9.5"
    )


def test_messages_wait_for_their_senders_port() -> None:
    program = Program(Grid(1, 3), stale([3, 1, 0]), 3)
    # An activation of the first two stages takes 3 ms to leave, a gradient of the second 2 ms, of the last 1 ms.
    costs = [
        Cost(forward=1, backward=2, output=3000),
        Cost(forward=1, backward=2, input=2000, output=3000),
        Cost(forward=1, backward=2, input=1000),
    ]
    timeline = dated(program, model_of(program, costs, link=Link(0.5, 8)))
    assert spans_of(timeline, 0, 0)[:3] == lines("F0 0-1, F1 1-2, F2 2-3")
    # Stage 1 would be sent batches at 4.5, 7.5 and 10.5.
    assert spans_of(timeline, 0, 1)[:2] == lines("F0 4.5-5.5, F1 7.5-8.5")
    # The last stage gets batch 0 at 5.5 + 3.5, and batch 1, which is ready at 8.5, leaves behind it.
    assert spans_of(timeline, 0, 2)[:3] == lines("F0 9-10, B0 10-12, U0 12-12")
    assert spans_of(timeline, 0, 2)[3:5] == lines("F1 12-13, B1 13-15")
    # Gradient 0 is there at 12 + 1.5.  What it makes leaves when the port is free: batch 1 left from 8.5 to 11.5.
    assert spans_of(timeline, 0, 1)[2:5] == lines("B0 13.5-15.5, U0 15.5-15.5, F2 15.5-16.5")
    left = {(edge.name, edge.source.stage, i): time / MS for (edge, i), time in timeline.departures.items()}
    assert [left["activation", 0, b] for b in range(3)] == [1, 4, 7]
    assert [left["activation", 1, b] for b in range(3)] == [5.5, 8.5, 17.5]  # the third behind gradient 0
    assert left["gradient", 1, 0] == 15.5
    assert timeline.arrivals[Edge("gradient", Unit(0, 1), Unit(0, 0)), 0] == 18 * MS


def test_what_takes_no_bandwidth_does_not_wait_for_the_port() -> None:
    rounds = Averaging(mixing_matrix("ring", 2), adapt_first=False, period=1, lag=0, updates=1)
    program = Program(Grid(2, 2), stale([0, 0]), 1, rounds)
    costs = [Cost(forward=1, backward=2, parameters=100_000, output=1000, input=1000)] * 2
    edge = Edge("activation", Unit(0, 0), Unit(0, 1))
    for outages, left in ((), 1), ((Outage(edge.source, edge.target, 0.5, 2),), 2):
        timeline = dated(program, model_of(program, costs, lateral_link=Link(0, 8), outages=outages))
        assert timeline.departures[edge, 0] == left * MS  # parameters leave until 100 ms


def test_links_between_stages_and_between_groups_are_two() -> None:
    rounds = Averaging(mixing_matrix("ring", 2), adapt_first=True, period=1, lag=0, updates=1)
    program = Program(Grid(2, 2), stale([0, 0]), 1, rounds)
    costs = [Cost(forward=1, backward=1, parameters=2000, output=4000, input=4000)] * 2
    timeline = dated(program, model_of(program, costs, link=Link(1, 8), lateral_link=Link(3, 32)))
    taken = {(edge.name, timeline.arrivals[edge, i] - left) for (edge, i), left in timeline.departures.items()}
    assert taken == {("activation", 5 * MS), ("gradient", 5 * MS), ("parameters", 3 * MS + MS // 2)}


def test_handling_takes_the_time_of_sender_and_receiver() -> None:
    program = Program(Grid(1, 2), stale([1, 0]), 2)
    # 2 MB at 0.25 ms a MB for an activation, 1 MB for a gradient.
    costs = [Cost(forward=1, backward=2, output=2_000_000), Cost(forward=1, backward=2, input=1_000_000)]
    model = model_of(program, costs, 0.25, link=Link(1))
    timeline = dated(program, model)
    # 0.5 ms after each forward of stage 0, 0.5 ms before each of stage 1; a quarter for a gradient.
    assert spans_of(timeline, 0, 0) == lines(
        "F0 0-1, F1 1.5-2.5, B0 7.5-9.5, U0 9.5-9.5, B1 11.25-13.25, U1 13.25-13.25"
    )
    assert spans_of(timeline, 0, 1) == lines("F0 3-4, B0 4-6, U0 6.25-6.25, F1 6.75-7.75, B1 7.75-9.75, U1 10-10")
    found = estimate(program, model)
    assert found.total == 13.25
    # Stage 0: 1 for two activations, 0.5 for two gradients; it waits 3 to 7.25 for one that travels for 1 of that, and
    # 9.5 to 11 for one that does so too.  Stage 1: likewise 1.5, and up to 2.5 for one that travels for 1.
    assert found.sending == pytest.approx((1 + 0.5 + 1 + 1 + 1 + 0.5 + 1) / (2 * 13.25))
    assert found.busy == pytest.approx(12 / (2 * 13.25))


def test_a_unit_that_is_out_begins_nothing_and_finishes_what_it_has_begun() -> None:
    program = Program(Grid(1, 2), stale([1, 0]), 2)
    out = (Outage(Unit(0, 1), None, 0.5, 2.25), Outage(Unit(0, 1), None, 4.5, 6), Outage(Unit(0, 0), None, 0, 0.25))
    timeline = dated(program, model_of(program, [Cost(forward=1, backward=2)] * 2, outages=out))
    assert spans_of(timeline, 0, 0) == lines(
        "F0 0.25-1.25, F1 1.25-2.25, B0 5.25-7.25, U0 7.25-7.25, B1 9-11, U1 11-11"
    )
    assert spans_of(timeline, 0, 1) == lines("F0 2.25-3.25, B0 3.25-5.25, U0 6-6, F1 6-7, B1 7-9, U1 9-9")


def test_outages_that_follow_or_overlap_are_one() -> None:
    program = Program(Grid(1, 1), stale([0]), 1)
    out = tuple(Outage(Unit(0, 0), None, a, b) for a, b in ((2, 7), (5, 6), (0, 2), (6.5, 8)))
    timeline = dated(program, model_of(program, [Cost(forward=1, backward=2)], outages=out))
    assert spans_of(timeline, 0, 0) == lines("F0 8-9, B0 9-11, U0 11-11")


def test_nothing_leaves_on_a_link_that_is_out_and_what_is_under_way_arrives() -> None:
    program = Program(Grid(1, 2), stale([2, 0]), 3)
    out = (Outage(Unit(0, 0), Unit(0, 1), 1.5, 5),)
    timeline = dated(program, model_of(program, [Cost(forward=1, backward=2)] * 2, link=Link(1), outages=out))
    edge = Edge("activation", Unit(0, 0), Unit(0, 1))
    assert [timeline.departures[edge, b] / MS for b in range(3)] == [1, 5, 5]
    assert [timeline.arrivals[edge, b] / MS for b in range(3)] == [2, 6, 6]
    assert spans_of(timeline, 0, 0)[:4] == lines("F0 0-1, F1 1-2, F2 2-3, B0 6-8")  # the way back is not out
    assert spans_of(timeline, 0, 1)[:5] == lines("F0 2-3, B0 3-5, U0 5-5, F1 6-7, B1 7-9")


def test_a_message_that_waits_for_its_link_keeps_the_port() -> None:
    program = Program(Grid(1, 2), stale([2, 0]), 3)
    out = (Outage(Unit(0, 0), Unit(0, 1), 0.5, 5),)
    costs = [Cost(forward=1, backward=2, output=2000)] * 2
    timeline = dated(program, model_of(program, costs, link=Link(1, 8), outages=out))
    edge = Edge("activation", Unit(0, 0), Unit(0, 1))
    assert [timeline.departures[edge, b] / MS for b in range(3)] == [5, 7, 9]
    assert [timeline.arrivals[edge, b] / MS for b in range(3)] == [8, 10, 12]


def test_a_slow_unit_takes_longer_and_others_do_not() -> None:
    program = Program(Grid(1, 2), stale([1, 0]), 1)
    timeline = dated(program, model_of(program, [Cost(forward=1, backward=2)] * 2, slow={Unit(0, 1): 2.5}))
    assert spans_of(timeline, 0, 0) == lines("F0 0-1, B0 8.5-10.5, U0 10.5-10.5")
    assert spans_of(timeline, 0, 1) == lines("F0 1-3.5, B0 3.5-8.5, U0 8.5-8.5")


def test_a_second_forward_runs_while_the_gradient_is_under_way() -> None:
    program = Program(Grid(1, 2), stale([1, 0]), 2, recompute=True)
    costs = [Cost(forward=1, backward=2, recompute=1.5), Cost(forward=1, backward=2, recompute=9)]
    timeline = dated(program, model_of(program, costs, link=Link(0.5)))
    assert spans_of(timeline, 0, 0) == lines(
        "F0 0-1, F1 1-2, G0 2-3.5, B0 5-7, U0 7-7, G1 7-8.5, B1 8.5-10.5, U1 10.5-10.5"
    )
    assert spans_of(timeline, 0, 1) == lines("F0 1.5-2.5, B0 2.5-4.5, U0 4.5-4.5, F1 4.5-5.5, B1 5.5-7.5, U1 7.5-7.5")


def test_an_observer_takes_no_time_and_changes_no_date() -> None:
    out = (Outage(Unit(0, 1), None, 3, 5),)
    disturbed: dict[str, Any] = {
        "link": Link(0.5, 80),
        "jitter": Jitter(0.3, 0.2, 1.0),
        "outages": out,
        "slow": {Unit(0, 0): 2.0},
    }
    costs = [Cost(forward=1, backward=2, update=0.5, input=9000, output=9000, parameters=8000)] * 2
    found = []
    for watch in (None, Watch(1, 1, 3)):
        program = Program(Grid(2, 2), stale([2, 0]), 4, AllReduce(2), watch)
        found.append(dated(program, model_of(program, costs, 0.5, **disturbed)).spans)
    alone, watched = ({(s.unit, s.kind, s.index): (s.start, s.end) for s in spans} for spans in found)
    assert {key: watched[key] for key in alone} == alone
    extra = {key: ends for key, ends in watched.items() if key not in alone}
    assert {kind for _, kind, _ in extra} == {Kind.REPORT, Kind.SNAPSHOT, Kind.COLLECT, Kind.EVALUATE}
    assert all(start == end for start, end in extra.values())


def test_the_clock_shows_the_end_of_the_action_dated_last() -> None:
    program = Program(Grid(1, 1), stale([0]), 1)
    clock = Clock(program, model_of(program, [Cost(forward=1, backward=2)]))
    shown = []
    for action in program.actions(Unit(0, 0)):
        clock.date(Unit(0, 0), action)
        shown.append(clock.now)
    assert shown == [MS, 3 * MS, 3 * MS]
    assert clock.lanes[Unit(0, 0)].updates == [3 * MS]


def test_messages_weigh_what_costs_say() -> None:
    program = Program(Grid(4, 3), stale([4, 2, 0], 3), 1)
    sizes = [{"input": 10 * k, "output": 10 * k + 11, "targets": 30 * k, "parameters": 100 + k} for k in range(3)]
    costs = [Cost(forward=1, backward=1, **of) for of in sizes]
    weigh = message_bytes(costs, program, lambda edge, nbytes: nbytes + edge.target.group)
    assert weigh(Edge("activation", Unit(2, 1), Unit(2, 2))) == 7  # 21 in three micro-batches
    assert weigh(Edge("gradient", Unit(2, 2), Unit(2, 1))) == 6
    assert weigh(Edge("target", Unit(2, 0), Unit(2, 2))) == 20
    assert weigh(Edge("parameters", Unit(2, 1), Unit(3, 1))) == 101 + 3
    assert message_bytes(costs, program)(Edge("parameters", Unit(2, 1), Unit(3, 1))) == 101
    frozen = message_bytes(costs, replace(program, frozen=1))
    assert [frozen(Edge("gradient", Unit(2, k), Unit(2, k - 1))) for k in (1, 2)] == [0, 6]


def test_tied_parameters_weigh_what_costs_say_in_every_micro_batch() -> None:
    shared = {"w": 48, "v": 8}
    costs = [Cost(forward=1, backward=1, parameters=100, tied=tied) for tied in (shared, {"w": 48}, shared, {})]
    program = Program(Grid(1, 4), stale([6, 4, 2, 0], 2), 1, ties=Ties(ties_of(costs)))
    weigh = message_bytes(costs, program)
    assert [weigh(Edge(WEIGHTS, Unit(0, 0), Unit(0, k))) for k in (1, 2)] == [48, 56]
    assert [weigh(Edge(GRADIENT, Unit(0, k), Unit(0, k - 1))) for k in (1, 2)] == [48, 48]
    assert weigh(Edge(GRADIENT, Unit(0, 2), Unit(0, 0))) == 8


def test_bytes_of_a_real_plan_may_be_given_instead() -> None:
    program = Program(Grid(1, 2), stale([0, 0]), 1)
    model = replace(model_of(program, [Cost(forward=1, backward=1)] * 2, link=Link(0, 8)), nbytes=lambda edge: 2000)
    assert spans_of(dated(program, model), 0, 1) == lines("F0 3-4, B0 4-5, U0 5-5")


# The same by events.  Time goes on from event to event; units, ports and messages are little processes that sleep until
# a time, or until a message or work is there.

Sleeper = Generator[int | Edge | Unit, None, None]


@dataclass(frozen=True)
class World:
    """What the events need to know, in exact fractions of a millisecond."""

    costs: tuple[Cost, ...]
    micro_batches: int
    groups: int
    handling: Fraction
    disturbances: Disturbances

    def nanoseconds(self, unit: Unit, kind: Kind) -> int:
        if unit == OBSERVER:
            return 0
        cost = self.costs[unit.stage]
        whole = {
            Kind.FORWARD: cost.forward,
            Kind.BACKWARD: cost.backward,
            Kind.RECOMPUTE: cost.forward if cost.recompute is None else cost.recompute,
        }
        once = {Kind.UPDATE: cost.update, Kind.MIX: cost.mix, Kind.REDUCE: cost.mix}
        taken = Fraction(once.get(kind, 0))
        if kind in whole:
            fixed = min(Fraction(cost.fixed), Fraction(whole[kind]))
            taken = fixed + (Fraction(whole[kind]) - fixed) / self.micro_batches
        return round(round(taken * MS) * Fraction(self.disturbances.slow.get(unit, 1)))

    def nbytes(self, edge: Edge) -> int:
        cost = self.costs[edge.source.stage]
        whole, parts = {
            "activation": (cost.output, self.micro_batches),
            "gradient": (cost.input, self.micro_batches),
            "parameters": (cost.parameters, 1),
            "gradient-part": (cost.parameters, self.groups),
            "gradient-mean": (cost.parameters, self.groups),
        }[edge.name]
        return whole // parts

    def handled(self, edge: Edge) -> int:
        return 0 if edge.target == OBSERVER else round(Fraction(self.nbytes(edge), 10**6) * self.handling * MS)

    def occupied(self, edge: Edge) -> int:
        mbits = self._link(edge).mbits
        if edge.target == OBSERVER or mbits == float("inf"):
            return 0
        return round(self.nbytes(edge) * 8 * 1000 / Fraction(mbits))

    def latency(self, edge: Edge) -> int:
        return 0 if edge.target == OBSERVER else round(Fraction(self._link(edge).latency) * MS)

    def over(self, source: Unit, target: Unit | None, time: int) -> int | None:
        """Return when an outage ends that lasts now."""
        for o in self.disturbances.outages:
            if (o.source, o.target) == (source, target) and o.start * MS <= time < o.end * MS:
                return int(o.end * MS)
        return None

    def _link(self, edge: Edge) -> Link:
        inner = edge.source.group == edge.target.group
        return self.disturbances.link if inner else self.disturbances.lateral_link


class Events:
    """Runs a program by events."""

    def __init__(self, program: Program, world: World) -> None:
        self.world, self.now, self.timeline = world, 0, Timeline()
        self._order = count()
        self._queue: list[tuple[int, int, Sleeper]] = []
        self._asleep: dict[Edge | Unit, Sleeper] = {}
        self._mail: dict[Edge, deque[int]] = defaultdict(deque)
        self._port: dict[Unit, deque[Tag]] = defaultdict(deque)
        for unit in program.agents:
            self._wake(0, self._unit(unit, program.actions(unit)))
            self._wake(0, self._sending(unit))
        while self._queue:
            self.now, _, sleeper = heapq.heappop(self._queue)
            until = next(sleeper, None)
            if isinstance(until, int):
                self._wake(until, sleeper)
            elif until is not None:
                self._asleep[until] = sleeper

    def _wake(self, time: int, sleeper: Sleeper) -> None:
        heapq.heappush(self._queue, (time, next(self._order), sleeper))

    def _call(self, what: Edge | Unit) -> None:
        if what in self._asleep:
            self._wake(self.now, self._asleep.pop(what))

    def _unit(self, unit: Unit, actions: Iterable[Action]) -> Sleeper:
        world = self.world
        for action in actions:
            for tag in action.needs:
                while not self._mail[tag.edge]:
                    yield tag.edge
            for tag in action.needs:
                assert self._mail[tag.edge].popleft() == tag.index
                yield self.now + world.handled(tag.edge)
            while (end := world.over(unit, None, self.now)) is not None:
                yield end
            start = self.now
            yield start + world.nanoseconds(unit, action.kind)
            self.timeline.executed(unit, action, start, self.now)
            for tag in action.sends:
                yield self.now + world.handled(tag.edge)
                if world.occupied(tag.edge):
                    self._port[unit].append(tag)
                    self._call(unit)
                else:
                    self._wake(self.now, self._flight(tag))

    def _sending(self, unit: Unit) -> Sleeper:
        while True:
            while not self._port[unit]:
                yield unit
            tag = self._port[unit].popleft()
            while (end := self.world.over(tag.edge.source, tag.edge.target, self.now)) is not None:
                yield end
            self.timeline.left(tag, self.now)
            yield self.now + self.world.occupied(tag.edge)
            self._wake(self.now, self._flight(tag))

    def _flight(self, tag: Tag) -> Sleeper:
        if not self.world.occupied(tag.edge):
            while (end := self.world.over(tag.edge.source, tag.edge.target, self.now)) is not None:
                yield end
            self.timeline.left(tag, self.now)
        yield self.now + self.world.latency(tag.edge)
        self.timeline.arrived(tag, self.now)
        # Two that an outage held up to the same moment wake in any order; an edge keeps its own.
        self._mail[tag.edge] = deque(sorted([*self._mail[tag.edge], tag.index]))
        self._call(tag.edge)


def halves(most: int, least: int = 0) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda n: n / 2)


COSTS = st.builds(
    Cost,
    forward=halves(6),
    backward=halves(6),
    recompute=st.none() | halves(4),
    update=halves(2),
    fixed=halves(3),
    mix=halves(2),
    input=st.sampled_from([0, 1, 400, 1000]),
    output=st.sampled_from([0, 1, 400, 1000]),
    parameters=st.sampled_from([0, 1, 400, 1000]),
)
LINKS = st.builds(Link, halves(5), st.sampled_from([float("inf"), 1.0, 8.0, 3.0]))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    groups, stages, updates, micro = (draw(st.integers(1, n)) for n in (3, 4, 4, 3))
    ahead = draw(st.lists(st.integers(0, 5), min_size=stages, max_size=stages))
    schedule: Schedule = draw(
        st.sampled_from(
            [stale(sorted(ahead, reverse=True), micro), gpipe(stages, micro), one_f_one_b(stages, micro)],
        )
    )
    averaging = st.builds(
        Averaging,
        st.just(mixing_matrix(draw(st.sampled_from(["ring", "star"])), groups)),
        adapt_first=st.booleans(),
        period=st.integers(1, 2),
        lag=st.integers(0, 2),
        updates=st.just(updates),
    )
    lateral = draw(st.just(NoLateral()) | st.just(AllReduce(groups)) | averaging)
    watch = draw(st.none() | st.just(Watch(1, 2, 1)))
    return Program(Grid(groups, stages), schedule, updates, lateral, watch, draw(st.booleans()))


@st.composite
def worlds(draw: st.DrawFn, program: Program) -> World:
    units = st.sampled_from(list(program.grid))
    edges = [e for u in program.grid for e in program.inbound(u)]
    places = units.map(lambda u: (u, None))
    if edges:
        places |= st.sampled_from(edges).map(lambda e: (e.source, e.target))
    starts = st.tuples(places, st.integers(0, 12), st.integers(1, 8))
    outages = draw(st.lists(starts, max_size=3))
    disturbances = Disturbances(
        link=draw(LINKS),
        lateral_link=draw(LINKS),
        slow=draw(st.dictionaries(units, st.sampled_from([0.5, 2.0, 3.0]), max_size=2)),
        outages=tuple(Outage(*place, float(start), float(start + length)) for place, start, length in outages),
    )
    costs = tuple(draw(COSTS) for _ in range(program.grid.stages))
    handling = draw(st.sampled_from([Fraction(0), Fraction(500), Fraction(1250)]))
    return World(costs, program.schedule.micro_batches, program.grid.groups, handling, disturbances)


def model_in(program: Program, world: World) -> TimeModel:
    weigh = message_bytes(world.costs, program, exchanged_in(program))
    return TimeModel(world.costs, world.micro_batches, float(world.handling), weigh, world.disturbances)


def ordered(spans: Iterable[Span]) -> list[tuple[Any, ...]]:
    return sorted((s.unit, s.kind.value, s.index, s.start, s.end) for s in spans)


@settings(deadline=None, max_examples=150)
@given(data=st.data(), program=programs())
def test_dates_are_those_of_a_simulation_by_events(data: st.DataObject, program: Program) -> None:
    world = data.draw(worlds(program))
    found, expected = dated(program, model_in(program, world)), Events(program, world).timeline
    assert ordered(found.spans) == ordered(expected.spans)
    assert found.departures == expected.departures
    assert found.arrivals == expected.arrivals


def shuffled(program: Program, model: TimeModel, choose: Callable[[list[Unit]], Unit]) -> tuple[Timeline, Clock]:
    """Date the ready units in an order of somebody's choice."""
    timeline = Timeline()
    clock = Clock(program, model, timeline)
    rest = {unit: deque(program.actions(unit)) for unit in program.agents}
    sent: set[Tag] = set()
    while ready := [unit for unit, actions in rest.items() if actions and sent.issuperset(actions[0].needs)]:
        unit = choose(ready)
        action = rest[unit].popleft()
        clock.date(unit, action)
        sent.update(action.sends)
    assert not any(rest.values())
    return timeline, clock


@settings(deadline=None, max_examples=40)
@given(data=st.data(), program=programs(), seed=st.integers(0, 10**6), jitter=st.booleans())
def test_the_order_in_which_ready_units_are_dated_changes_nothing(
    data: st.DataObject, program: Program, seed: int, jitter: bool
) -> None:
    model = model_in(program, data.draw(worlds(program)))
    disturbances = replace(model.disturbances, jitter=Jitter(0.5, 0.2, 2.0) if jitter else Jitter(), seed=seed)
    model = replace(model, disturbances=disturbances)
    expected = Timeline()
    estimate(program, model, expected)
    for choose in (random.Random(seed).choice, lambda ready: ready[0], lambda ready: ready[-1]):
        timeline, clock = shuffled(program, model, choose)
        assert ordered(timeline.spans) == ordered(expected.spans)
        assert timeline.departures == expected.departures
        assert timeline.arrivals == expected.arrivals
        again = shuffled(program, model, lambda ready: ready[0])[1]
        for unit in program.agents:
            one, other = clock.lanes[unit], again.lanes[unit]
            for name in ("busy", "sending", "updates", "free"):
                assert getattr(one, name) == getattr(other, name)


def slower(data: st.DataObject, world: World) -> World:
    """Return a world in which something takes longer."""
    what = data.draw(st.sampled_from(["cost", "latency", "bandwidth", "unit", "handling", "outage"]))
    d = world.disturbances
    if what == "cost":
        k = data.draw(st.integers(0, len(world.costs) - 1))
        name = data.draw(st.sampled_from(["forward", "backward", "update", "fixed", "mix", "output", "input"]))
        costs = [replace(c, **{name: getattr(c, name) + 100 * (i == k)}) for i, c in enumerate(world.costs)]
        return replace(world, costs=tuple(costs))
    if what == "handling":
        return replace(world, handling=world.handling + 700)
    if what == "latency":
        return replace(world, disturbances=replace(d, link=Link(d.link.latency + 1.5, d.link.mbits)))
    if what == "bandwidth":
        link = Link(d.lateral_link.latency, min(2.0, d.lateral_link.mbits / 2))
        return replace(world, disturbances=replace(d, lateral_link=link))
    if what == "outage":
        return replace(world, disturbances=replace(d, outages=(*d.outages, Outage(Unit(0, 0), None, 2.0, 9.0))))
    slow = {**d.slow, Unit(0, 0): d.slow.get(Unit(0, 0), 1.0) * 2}
    return replace(world, disturbances=replace(d, slow=slow))


@settings(deadline=None, max_examples=80)
@given(data=st.data(), program=programs())
def test_nothing_happens_earlier_where_something_takes_longer(data: st.DataObject, program: Program) -> None:
    world = data.draw(worlds(program))
    before, after = (dated(program, model_in(program, w)) for w in (world, slower(data, world)))
    for early, late in zip(ordered(before.spans), ordered(after.spans), strict=True):
        assert early[:3] == late[:3]
        assert early[3] <= late[3]
        assert early[4] <= late[4]
    assert all(left <= after.departures[key] for key, left in before.departures.items())
    assert all(arrived <= after.arrivals[key] for key, arrived in before.arrivals.items())


@settings(deadline=None, max_examples=80)
@given(data=st.data(), program=programs())
def test_the_time_of_a_unit_is_busy_sending_or_waiting(data: st.DataObject, program: Program) -> None:
    world = data.draw(worlds(program))
    timeline, clock = shuffled(program, model_in(program, world), lambda ready: ready[0])
    for unit in program.agents:
        lane, free, sending = clock.lanes[unit], 0, 0
        done = {(s.kind, s.index): s for s in timeline.spans if s.unit == unit}
        assert lane.busy == sum(s.end - s.start for s in timeline.spans if s.unit == unit)
        for action in program.actions(unit):
            if action.kind is Kind.EVALUATE:
                continue
            span = done[action.kind, action.index]
            handled = sum(world.handled(tag.edge) for tag in action.needs)
            flights = [(timeline.arrivals[t.edge, t.index], timeline.departures[t.edge, t.index]) for t in action.needs]
            arrived = max((arrived for arrived, _ in flights), default=0)
            if arrived > free:
                left = next(left for end, left in flights if end == arrived)
                sending += arrived - max(left, free)
            sending += handled + sum(world.handled(tag.edge) for tag in action.sends)
            assert free + handled <= span.start <= span.end
            free = span.end + sum(world.handled(tag.edge) for tag in action.sends)
        assert (lane.free, lane.sending) == (free, sending)
        assert lane.busy + lane.sending <= lane.free


def test_draws_of_a_unit_do_not_depend_on_what_else_runs() -> None:
    def taken(groups: int, staleness: list[int], seed: int = 0) -> dict[Unit, list[int]]:
        program = Program(Grid(groups, len(staleness)), stale(staleness), 10)
        costs = [Cost(forward=1, backward=1, update=1)] * len(staleness)
        timeline = dated(program, model_of(program, costs, jitter=Jitter(0.4, 0.1, 3.0), seed=seed))
        return {u: [s.end - s.start for s in timeline.spans if s.unit == u] for u in program.grid}

    one, other = taken(1, [0, 0]), taken(3, [3, 2, 1])
    assert all(other[unit] == durations for unit, durations in one.items())
    assert len({tuple(durations) for durations in other.values()}) == 9
    assert taken(1, [0, 0], seed=1)[Unit(0, 0)] != one[Unit(0, 0)]
