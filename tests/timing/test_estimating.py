import itertools
from fractions import Fraction

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.errors import ConfigError, EngineError
from stalegrid.observe.timeline import Timeline
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.lateral import NoLateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, one_f_one_b, stale
from stalegrid.programs.watch import Watch
from stalegrid.timing.costs import Cost
from stalegrid.timing.disturbances import Disturbances, Jitter
from stalegrid.timing.estimating import Estimate, estimate, long_enough, steady
from stalegrid.timing.links import Link
from stalegrid.timing.tune import scaled
from tests.timing.test_clock import MS, model_in, model_of, programs, worlds

COST = Cost(forward=1, backward=2)
LINK = Link(0.5)

# Three stages, forward 1, backward 2, latency 0.5: total of 400 batches, and time per batch in the long run.
TOTALS = {(4, 2, 0): 1208, (3, 1, 0): 1407, (2, 1, 0): 1474, (2, 2, 0): 2794, (0, 0, 0): 4400}
LONG_RUN = {
    (4, 2, 0): Fraction(3),
    (3, 1, 0): Fraction(7, 2),
    (2, 1, 0): Fraction(11, 3),
    (2, 2, 0): Fraction(7),
    (0, 0, 0): Fraction(11),
}
PUBLISHED = {(4, 2, 0): 3.02, (3, 1, 0): 3.52, (2, 1, 0): 3.69, (2, 2, 0): 6.98, (0, 0, 0): 11.0}


def three_stages(staleness: tuple[int, ...], updates: int) -> Estimate:
    program = Program(Grid(1, 3), stale(staleness), updates)
    return estimate(program, model_of(program, [COST] * 3, link=LINK))


def slowest_cycle(staleness: tuple[int, ...], forward: Fraction, backward: Fraction, latency: Fraction) -> Fraction:
    """Return the time per batch of the slowest cycle: what waits for what, how long, and of how many batches before."""
    graph = nx.DiGraph()
    for k, m in enumerate(staleness):
        # B(b) follows F(b + m), F(b + m + 1) follows B(b), and each kind follows itself.
        graph.add_edge(("F", k), ("B", k), time=forward, batches=-m)
        graph.add_edge(("B", k), ("F", k), time=backward, batches=m + 1)
        if k:
            graph.add_edge(("F", k - 1), ("F", k), time=forward + latency, batches=0)
            graph.add_edge(("B", k), ("B", k - 1), time=backward + latency, batches=0)
    found = []
    for cycle in nx.simple_cycles(graph):
        steps = [graph.edges[a, b] for a, b in zip(cycle, [*cycle[1:], cycle[0]], strict=True)]
        batches = sum(step["batches"] for step in steps)
        assert batches > 0, f"deadlock: {cycle}"
        found.append(Fraction(sum(step["time"] for step in steps)) / batches)
    return max(found)


@pytest.mark.parametrize("staleness", PUBLISHED, ids=str)
def test_a_published_prototypes_times_are_the_totals_of_400_batches(staleness: tuple[int, ...]) -> None:
    found = three_stages(staleness, 400)
    assert found.total == TOTALS[staleness]
    assert found.total / 400 == pytest.approx(PUBLISHED[staleness], abs=0.0051)


@pytest.mark.parametrize("staleness", PUBLISHED, ids=str)
def test_in_the_long_run_the_slowest_cycle_sets_the_time_of_a_batch(staleness: tuple[int, ...]) -> None:
    expected = LONG_RUN[staleness]
    assert slowest_cycle(staleness, Fraction(1), Fraction(2), Fraction(1, 2)) == expected
    longer, shorter = three_stages(staleness, 306), three_stages(staleness, 300)
    assert Fraction(longer.total) - Fraction(shorter.total) == 6 * expected
    assert longer.batch == pytest.approx(float(expected), rel=2e-3)


@settings(deadline=None, max_examples=30)
@given(
    ahead=st.lists(st.integers(0, 5), min_size=1, max_size=4),
    forward=st.integers(1, 4),
    backward=st.integers(1, 4),
    latency=st.integers(0, 4),
)
def test_no_staleness_is_faster_or_in_the_long_run_slower_than_its_slowest_cycle(
    ahead: list[int], forward: int, backward: int, latency: int
) -> None:
    staleness = tuple(sorted(ahead, reverse=True))
    cycle = slowest_cycle(staleness, Fraction(forward), Fraction(backward), Fraction(latency, 2))
    program = Program(Grid(1, len(staleness)), stale(staleness), 120)
    costs = [Cost(forward=forward, backward=backward)] * len(staleness)
    found = estimate(program, model_of(program, costs, link=Link(latency / 2)))
    once = 2 * (staleness[0] + 1) * len(staleness) * (forward + backward + latency)  # to fill, and to drain
    assert 120 * cycle - once <= found.total <= 120 * cycle + once


@settings(deadline=None)
@given(ahead=st.lists(st.integers(0, 5), min_size=1, max_size=4), forward=st.integers(1, 4), backward=st.integers(1, 4))
def test_equal_stages_without_latency_are_all_busy_if_and_only_if_staleness_falls_at_every_stage(
    ahead: list[int], forward: int, backward: int
) -> None:
    staleness = tuple(sorted(ahead, reverse=True))
    cycle = slowest_cycle(staleness, Fraction(forward), Fraction(backward), Fraction(0))
    assert (cycle == forward + backward) is stale(staleness).all_busy


def test_increasing_staleness_is_refused_and_deadlocks() -> None:
    with pytest.raises(ConfigError, match="staleness: 0,1,0"):
        stale([0, 1, 0])
    program = Program(Grid(1, 3), Schedule((1, 2, 1)), 3)
    with pytest.raises(EngineError, match=r"deadlock: .*unit \(0,0\) waits for gradient \(0,1\)->\(0,0\) before B0"):
        estimate(program, model_of(program, [COST] * 3))


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([7], 7),
        ([7, 10], 3),
        ([7, 10, 30], 11.5),
        ([100, 10, 14, 200], 4),  # from the second to the third
        ([0, 0, 100, 101, 102, 106, 500, 501], 2),
    ],
)
def test_the_middle_half_of_updates_counts(ends: list[int], expected: float) -> None:
    assert steady(ends) == expected


@pytest.mark.parametrize(
    ("schedule", "updates", "expected"),
    [
        (stale([4, 2, 0]), 200, 200),
        (stale([72, 36, 0]), 200, 296),  # four times the window, and 4 more
        (stale([72, 36, 0], 4), 10, 80),  # in updates of four batches, rounded up
        (one_f_one_b(3, 8), 10, 10),
        (stale([2]), 0, 16),
    ],
)
def test_a_run_is_long_enough_where_a_quarter_fills_the_pipeline(
    schedule: Schedule, updates: int, expected: int
) -> None:
    assert long_enough(schedule, updates) == expected


@settings(deadline=None, max_examples=40)
@given(
    costs=st.lists(st.tuples(st.integers(1, 9), st.integers(1, 9)), min_size=1, max_size=5),
    factor=st.sampled_from([0, 1, 2, 8]),
    micro=st.integers(1, 3),
    latency=st.integers(0, 9),
)
def test_no_batch_takes_less_than_on_the_slowest_stage(
    costs: list[tuple[int, int]], factor: int, micro: int, latency: int
) -> None:
    schedule = stale(scaled(len(costs), factor), micro)
    program = Program(Grid(1, len(costs)), schedule, long_enough(schedule, 8))
    stages = [Cost(forward=forward, backward=backward) for forward, backward in costs]
    found = estimate(program, model_of(program, stages, link=Link(latency)))
    assert found.batch >= max(forward + backward for forward, backward in costs) - 1e-4


def test_a_batch_is_timed_by_the_slowest_unit() -> None:
    program = Program(Grid(2, 1), stale([0]), 8)
    found = estimate(program, model_of(program, [COST], slow={Unit(1, 0): 2.0}))
    assert (found.batch, found.total) == (6.0, 48.0)
    assert found.busy == 0.75
    assert (found.sending, found.waiting) == (0.0, 0.25)


def test_one_update_takes_until_it_ends() -> None:
    program = Program(Grid(1, 2), stale([0, 0]), 1)
    assert estimate(program, model_of(program, [COST] * 2)).batch == 6.0


def test_one_device_that_never_waits_is_always_busy() -> None:
    program = Program(Grid(1, 1), stale([0]), 10)
    found = estimate(program, model_of(program, [Cost(forward=1, backward=2, update=0.5)]))
    assert (found.batch, found.total, found.actions) == (3.5, 35.0, 30)
    assert (found.busy, found.sending, found.waiting) == (1.0, 0.0, 0.0)


def test_what_costs_nothing_takes_no_time() -> None:
    program = Program(Grid(2, 2), stale([1, 0]), 3)
    found = estimate(program, model_of(program, [Cost(forward=0, backward=0)] * 2))
    assert (found.batch, found.total, found.busy, found.sending) == (0.0, 0.0, 0.0, 0.0)


def test_every_action_is_dated() -> None:
    program = Program(Grid(2, 3), stale([4, 2, 0], 2), 5, AllReduce(2), Watch(2, 2, 3), recompute=True)
    found = estimate(program, model_of(program, [COST] * 3))
    assert found.actions == sum(1 for agent in program.agents for _ in program.actions(agent))


@settings(deadline=None, max_examples=60)
@given(data=st.data(), program=programs())
def test_shares_are_those_of_the_timeline_and_sum_to_one(data: st.DataObject, program: Program) -> None:
    world = data.draw(worlds(program))
    timeline = Timeline()
    found = estimate(program, model_in(program, world), timeline)
    units = list(program.grid)
    busy = sum(s.end - s.start for s in timeline.spans if s.unit in units)
    assert round(found.total * MS) >= max(s.end for s in timeline.spans if s.unit in units)
    updates = [s for s in timeline.spans if s.kind is Kind.UPDATE]
    ends = [max(s.end for s in updates if s.index == n) for n in range(program.updates)]
    assert [round(end * MS) for end in found.updated] == ends
    assert found.busy == pytest.approx(busy / (found.total * MS * len(units)) if found.total else 0)
    assert found.busy + found.sending + found.waiting == pytest.approx(1)
    assert min(found.busy, found.sending) >= 0
    assert found.waiting >= -1e-12
    assert found.batch >= 0


def test_where_the_way_takes_long_units_are_sending_and_where_a_neighbour_does_they_wait() -> None:
    program = Program(Grid(1, 2), stale([0, 0]), 50)
    far = estimate(program, model_of(program, [COST] * 2, link=Link(12)))
    slow = estimate(program, model_of(program, [COST] * 2, slow={Unit(0, 1): 9.0}))
    assert far.batch == slow.batch == 30.0
    # Each computes for 3 of 30 ms and waits for 27: for 12 of these what it needs is under way.
    assert (far.busy, far.sending, far.waiting) == pytest.approx((0.1, 0.4, 0.5))
    assert slow.sending == 0.0
    assert slow.waiting == pytest.approx(0.5)


def test_synchronous_stages_wait_as_long_as_the_bubble() -> None:
    # 1F1B: K - 1 of M + K - 1 forwards and backwards.
    for stages, micro in itertools.product((2, 3, 4), (1, 2, 4)):
        program = Program(Grid(1, stages), one_f_one_b(stages, micro), 3)
        found = estimate(program, model_of(program, [Cost(forward=micro, backward=2 * micro)] * stages))
        assert found.waiting == pytest.approx((stages - 1) / (micro + stages - 1))


def test_a_slow_group_slows_its_neighbours_down_only_where_groups_exchange() -> None:
    slow = {Unit(1, 0): 3.0}
    batches = []
    rounds = Averaging(mixing_matrix("ring", 2), adapt_first=True, period=1, lag=0, updates=20)
    for lateral in (NoLateral(), rounds, AllReduce(2)):
        program = Program(Grid(2, 1), stale([0]), 20, lateral)
        timeline = Timeline()
        estimate(program, model_of(program, [COST], slow=slow), timeline)
        batches.append(max(s.end for s in timeline.spans if s.unit == Unit(0, 0)) / MS)
    assert batches == [60, 180, 180]


def test_an_estimate_is_the_same_every_time_and_another_for_another_seed() -> None:
    program = Program(Grid(1, 3), stale([4, 2, 0]), 40)
    jitter = Jitter(0.3, 0.05, 5.0)
    found = [estimate(program, model_of(program, [COST] * 3, jitter=jitter, seed=seed)) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]


def test_jitter_costs_less_where_stages_run_ahead() -> None:
    def loss(staleness: list[int]) -> float:
        program = Program(Grid(1, 3), stale(staleness), 300)
        exact, jittered = (
            estimate(program, model_of(program, [COST] * 3, jitter=jitter)).batch for jitter in (Jitter(), Jitter(0.4))
        )
        return jittered / exact

    assert Disturbances().jitter == Jitter()
    assert loss([12, 6, 0]) < loss([2, 1, 0])
