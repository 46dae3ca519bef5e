import itertools
from statistics import median

import pytest

from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.timing.clock import TimeModel
from stalegrid.timing.costs import Cost
from stalegrid.timing.disturbances import Disturbances, Jitter
from stalegrid.timing.pace import Pace, durations

UNIT = Unit(1, 2)
COST = Cost(forward=4.0, backward=8.0, recompute=6.0, update=2.0, fixed=1.0, mix=0.25)


def test_a_whole_batch_takes_what_it_costs() -> None:
    assert durations(COST, 1) == {
        Kind.FORWARD: 4_000_000,
        Kind.RECOMPUTE: 6_000_000,
        Kind.BACKWARD: 8_000_000,
        Kind.UPDATE: 2_000_000,
        Kind.REDUCE: 250_000,
        Kind.MIX: 250_000,
    }


def test_a_micro_batch_takes_its_share_and_what_is_fixed_and_an_update_takes_it_once() -> None:
    assert durations(COST, 4) == {
        Kind.FORWARD: 1_750_000,  # 1 + 3/4
        Kind.RECOMPUTE: 2_250_000,
        Kind.BACKWARD: 2_750_000,
        Kind.UPDATE: 2_000_000,
        Kind.REDUCE: 250_000,
        Kind.MIX: 250_000,
    }


def test_what_is_fixed_is_not_more_than_the_whole() -> None:
    found = durations(Cost(forward=0.5, backward=2.0, fixed=1.0), 4)
    assert (found[Kind.FORWARD], found[Kind.BACKWARD]) == (500_000, 1_250_000)


def test_a_second_forward_takes_as_long_as_the_first_unless_told() -> None:
    assert durations(Cost(forward=3, backward=1), 3)[Kind.RECOMPUTE] == 1_000_000
    assert Kind.RECOMPUTE not in durations(Cost(forward=3, backward=1, recompute=0), 1)


def test_kinds_that_cost_nothing_are_left_out() -> None:
    assert durations(Cost(forward=0, backward=0), 2) == {}
    assert set(durations(Cost(forward=1, backward=0), 2)) == {Kind.FORWARD, Kind.RECOMPUTE}


def test_times_are_whole_nanoseconds() -> None:
    found = durations(Cost(forward=1e-6 / 3, backward=1.0), 3)
    assert found[Kind.BACKWARD] == 333_333
    assert all(isinstance(time, int) for time in found.values())


def test_an_undisturbed_unit_takes_the_usual_time_and_nothing_for_other_kinds() -> None:
    pace = Pace(UNIT, durations(COST, 1), Disturbances())
    assert [pace.of(kind) for kind in Kind] == [durations(COST, 1).get(kind, 0) for kind in Kind]


@pytest.mark.parametrize(("factor", "expected"), [(3.0, 12_000_000), (0.25, 1_000_000), (1.0, 4_000_000)])
def test_a_slow_unit_takes_so_many_times_as_long(factor: float, expected: int) -> None:
    slow = Disturbances(slow={UNIT: factor})
    assert Pace(UNIT, durations(COST, 1), slow).of(Kind.FORWARD) == expected
    assert Pace(Unit(1, 1), durations(COST, 1), slow).of(Kind.FORWARD) == 4_000_000


def test_jitter_takes_one_draw_an_action_that_takes_time_in_their_order() -> None:
    jitter = Jitter(0.4, 0.3, 1.0)
    pace = Pace(UNIT, durations(COST, 1), Disturbances(jitter=jitter, slow={UNIT: 2.0}, seed=9))
    kinds = [Kind.FORWARD, Kind.SHARE, Kind.BACKWARD, Kind.REPORT, Kind.UPDATE, Kind.MIX, Kind.SNAPSHOT] * 100
    taken = [(kind, pace.of(kind)) for kind in kinds]
    usual = durations(COST, 1)
    draws = jitter.draws(9, UNIT)
    for kind, time in taken:
        if kind in usual:
            factor, stall = next(draws)
            assert time == round(2.0 * usual[kind] * factor) + stall
        else:
            assert time == 0


def test_the_median_of_a_jittered_action_is_its_usual_time() -> None:
    pace = Pace(UNIT, {Kind.FORWARD: 1_000_000}, Disturbances(jitter=Jitter(0.3)))
    assert median(pace.of(Kind.FORWARD) for _ in range(3000)) == pytest.approx(1_000_000, rel=0.03)


def test_what_takes_no_time_does_not_stall() -> None:
    pace = Pace(UNIT, {Kind.FORWARD: 0}, Disturbances(jitter=Jitter(0.1, 1.0, 5.0)))
    assert pace.of(Kind.FORWARD) == pace.of(Kind.SHARE) == pace.stretched(0) == 0


def test_a_real_time_is_stretched_like_a_usual_one() -> None:
    disturbances = Disturbances(slow={UNIT: 1.5}, jitter=Jitter(0.2), seed=4)
    real, virtual = Pace(UNIT, {}, disturbances), Pace(UNIT, {Kind.FORWARD: 700}, disturbances)
    assert [real.stretched(700) for _ in range(50)] == [virtual.of(Kind.FORWARD) for _ in range(50)]
    assert Pace(UNIT, {}, Disturbances(slow={UNIT: 1.5})).stretched(7) == 10  # 10.5, to the even one


def test_the_observer_takes_no_time_whatever_happens_to_units() -> None:
    disturbances = Disturbances(jitter=Jitter(0.5, 1.0, 3.0))
    model = TimeModel((COST, COST), 1, 0.0, lambda edge: 0, disturbances)
    assert {model.pace(OBSERVER).of(kind) for kind in Kind} == {0}


def test_a_unit_is_paced_by_the_costs_of_its_stage_and_its_own_draws() -> None:
    costs = (Cost(forward=1, backward=2), Cost(forward=3, backward=4))
    model = TimeModel(costs, 2, 0.0, lambda edge: 0, Disturbances(slow={Unit(1, 1): 2.0}))
    found = {(s, k): model.pace(Unit(s, k)).of(Kind.FORWARD) for s, k in itertools.product((0, 1), (0, 1))}
    assert found == {(0, 0): 500_000, (1, 0): 500_000, (0, 1): 1_500_000, (1, 1): 3_000_000}


def test_a_group_with_a_smaller_batch_takes_less_and_its_messages_weigh_less() -> None:
    costs = (Cost(forward=1, backward=2, update=4, fixed=0.5), Cost(forward=3, backward=4))
    model = TimeModel(costs, 2, 0.0, lambda edge: 60, Disturbances(), portions=(1.0, 1 / 3))
    found = {
        s: [model.pace(Unit(s, 0)).of(kind) for kind in (Kind.FORWARD, Kind.BACKWARD, Kind.UPDATE)] for s in (0, 1)
    }
    assert found == {0: [750_000, 1_250_000, 4_000_000], 1: [583_333, 750_000, 4_000_000]}
    weights = [model.weight(Edge(name, Unit(1, 0), Unit(1, 1))) for name in ("activation", "gradient", "target")]
    assert weights == [20, 20, 20]
    assert model.weight(Edge("activation", Unit(0, 0), Unit(0, 1))) == 60
    assert model.weight(Edge("gradient-part", Unit(1, 0), Unit(0, 0))) == 60
