import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import (
    MEAN,
    PARAMETERS,
    PARAMETERS_MEAN,
    PARAMETERS_PART,
    PART,
    AllReduce,
    Averaging,
    Reduced,
    Together,
)
from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit

RING = mixing_matrix("ring", 4)
UNIT = Unit(1, 2)


def averaging(adapt_first: bool = False, period: int = 1, lag: int = 0, updates: int = 6) -> Averaging:
    return Averaging(RING, adapt_first, period, lag, updates)


def parameters(source: int, target: int, update: int) -> Tag:
    return Tag(Edge(PARAMETERS, Unit(source, 2), Unit(target, 2)), update)


def round_of(rounds: Averaging, update: int, unit: Unit = UNIT) -> tuple[list[Action], list[Action]]:
    """Return what is due before the forwards and after the update of a round."""
    assert list(rounds.before_update(unit, update)) == []
    return list(rounds.opening(unit, update)), list(rounds.after_update(unit, update))


@pytest.mark.parametrize(
    ("period", "lag", "turns"),
    [
        (1, 0, [0, 1, 2, 3, 4, 5, 6]),
        (2, 0, [None, 0, None, 1, None, 2, None]),
        (3, 0, [None, None, 0, None, None, 1, None]),
        (1, 2, [None, None, 2, 3, 4, 5, 6]),
        (2, 2, [None, None, None, 1, None, 2, None]),
        (2, 3, [None, None, None, 1, None, 2, None]),
        (8, 0, [None] * 7),
        (1, 7, [None] * 7),
    ],
)
def test_turns(period: int, lag: int, turns: list[int | None]) -> None:
    rounds = averaging(period=period, lag=lag, updates=7)
    assert [rounds.turn(n) for n in range(7)] == turns
    assert [rounds.turn(n) for n in range(7, 20)] == [None] * 13


@settings(deadline=None)
@given(period=st.integers(1, 5), lag=st.integers(0, 6), updates=st.integers(1, 20))
def test_turns_count_periods_from_the_start_of_the_run(period: int, lag: int, updates: int) -> None:
    rounds = averaging(period=period, lag=lag, updates=updates)
    mixed = [n for n in range(updates + period + lag) if rounds.turn(n) is not None]
    assert mixed == [n for n in range(period - 1, updates, period) if n >= lag]
    assert [rounds.turn(n) for n in mixed] == [n // period for n in mixed]


def test_combine_while_adapt_shares_at_the_start_and_mixes_at_the_end() -> None:
    assert round_of(averaging(), 3) == (
        [Action(Kind.SHARE, 3, sends=(parameters(1, 0, 3), parameters(1, 2, 3)))],
        [Action(Kind.MIX, 3, (parameters(0, 1, 3), parameters(2, 1, 3)))],
    )


def test_adapt_then_combine_shares_and_mixes_at_the_end() -> None:
    assert round_of(averaging(adapt_first=True), 3) == (
        [],
        [
            Action(Kind.SHARE, 3, sends=(parameters(1, 0, 3), parameters(1, 2, 3))),
            Action(Kind.MIX, 3, (parameters(0, 1, 3), parameters(2, 1, 3))),
        ],
    )


def test_lag_mixes_with_what_was_shared_that_many_rounds_ago() -> None:
    rounds = averaging(lag=2)
    opening, end = round_of(rounds, 1)
    assert opening == [Action(Kind.SHARE, 1, sends=(parameters(1, 0, 1), parameters(1, 2, 1)))]
    assert end == []
    _, end = round_of(rounds, 3)
    assert end == [Action(Kind.MIX, 3, (parameters(0, 1, 1), parameters(2, 1, 1)))]


def test_the_last_rounds_share_with_nobody_but_keep_their_own_vector() -> None:
    opening, end = round_of(averaging(lag=2, updates=6), 5)
    assert opening == [Action(Kind.SHARE, 5)]
    assert end == [Action(Kind.MIX, 5, (parameters(0, 1, 3), parameters(2, 1, 3)))]


def test_rounds_between_two_mixings_do_nothing() -> None:
    rounds = averaging(period=3)
    assert [len(opening) + len(end) for opening, end in (round_of(rounds, n) for n in range(6))] == [0, 0, 2, 0, 0, 2]


@settings(deadline=None)
@given(
    adapt_first=st.booleans(),
    period=st.integers(1, 4),
    lag=st.integers(0, 5),
    updates=st.integers(1, 12),
    group=st.integers(0, 3),
)
def test_nothing_is_shared_that_nobody_uses(adapt_first: bool, period: int, lag: int, updates: int, group: int) -> None:
    rounds = Averaging(mixing_matrix("one-peer-exponential", 4), adapt_first, period, lag, updates)
    for n in range(updates):
        kinds = [(a.kind, bool(a.sends)) for part in round_of(rounds, n, Unit(group, 0)) for a in part]
        mixes = rounds.turn(n) is not None
        sends = rounds.turn(n + lag) is not None
        assert kinds == [(Kind.SHARE, sends)] * (mixes or sends) + [(Kind.MIX, False)] * mixes


def test_a_time_varying_mixing_takes_turns() -> None:
    rounds = Averaging(mixing_matrix("one-peer-exponential", 4), False, 2, 0, 6)

    def peers(update: int) -> tuple[list[int], list[int]]:
        (share,), (mix,) = round_of(rounds, update)
        return [t.edge.target.group for t in share.sends], [t.edge.source.group for t in mix.needs]

    assert [peers(n) for n in (1, 3, 5)] == [([0], [2]), ([3], [3]), ([0], [2])]


def test_averaging_receives_from_everybody_it_ever_mixes_with() -> None:
    assert list(averaging().edges(UNIT)) == [Edge(PARAMETERS, Unit(r, 2), UNIT) for r in (0, 2)]
    cycle = Averaging(mixing_matrix("one-peer-exponential", 4), False, 1, 0, 6)
    assert list(cycle.edges(UNIT)) == [Edge(PARAMETERS, Unit(r, 2), UNIT) for r in (2, 3)]


@pytest.mark.parametrize(("period", "lag", "fault"), [(0, 0, "period: 0"), (1, -1, "lag: -1")])
def test_impossible_rounds_are_refused(period: int, lag: int, fault: str) -> None:
    with pytest.raises(ConfigError, match=fault):
        averaging(period=period, lag=lag)


@pytest.mark.parametrize(
    ("stages", "period", "turns"),
    [
        (1, 3, ["..0..1..2"]),
        (2, 4, ["...0...1.", ".0...1..."]),
        (3, 3, ["..0..1..2", "0..1..2..", ".0..1..2."]),
        (3, 2, [".0.1.2.3.", ".0.1.2.3.", "0.1.2.3.4"]),
    ],
)
def test_stages_take_turns_within_a_period(stages: int, period: int, turns: list[str]) -> None:
    rounds = Averaging(RING, False, period, 0, 9, fragments=stages)

    def shown(stage: int) -> str:
        return "".join("." if (turn := rounds.turn(n, stage)) is None else str(turn) for n in range(9))

    assert [shown(k) for k in range(stages)] == turns
    for k in range(stages):
        mixes = [n for n in range(9) if round_of(rounds, n, Unit(1, k))[1]]
        assert mixes == [n for n, turn in enumerate(shown(k)) if turn != "."]


def test_together_shares_what_it_will_mix_itself_also_with_nobody() -> None:
    rounds = Together(mixing_matrix("ring", 1), True, 3, 1, 9)
    found = [list(rounds.after_update(Unit(0, 0), n)) for n in range(6)]
    assert found == [
        [],
        [Action(Kind.SHARE, 1)],
        [Action(Kind.MIX, 2)],
        [],
        [Action(Kind.SHARE, 4)],
        [Action(Kind.MIX, 5)],
    ]


def test_reduced_sends_parts_to_their_owners_and_means_back_after_updates_that_mix() -> None:
    rounds = Reduced(mixing_matrix("complete", 3), True, 2, 0, 9)

    def tags(name: str, *pairs: tuple[int, int]) -> tuple[Tag, ...]:
        return tuple(Tag(Edge(name, Unit(a, 2), Unit(b, 2)), 3) for a, b in pairs)

    assert (
        list(rounds.opening(UNIT, 3)) == list(rounds.before_update(UNIT, 3)) == list(rounds.after_update(UNIT, 2)) == []
    )
    assert list(rounds.after_update(UNIT, 3)) == [
        Action(Kind.SHARE, 3, sends=tags(PARAMETERS_PART, (1, 0), (1, 2))),
        Action(Kind.REDUCE, 3, tags(PARAMETERS_PART, (0, 1), (2, 1)), tags(PARAMETERS_MEAN, (1, 0), (1, 2))),
        Action(Kind.MIX, 3, tags(PARAMETERS_MEAN, (0, 1), (2, 1))),
    ]
    assert set(rounds.edges(UNIT)) == {
        Edge(name, Unit(r, 2), UNIT) for r in (0, 2) for name in (PARAMETERS_PART, PARAMETERS_MEAN)
    }


def test_all_reduce_sends_parts_to_their_owners_and_means_back_before_the_update() -> None:
    rounds = AllReduce(3)

    def tags(name: str, *pairs: tuple[int, int]) -> tuple[Tag, ...]:
        return tuple(Tag(Edge(name, Unit(a, 2), Unit(b, 2)), 4) for a, b in pairs)

    assert list(rounds.opening(UNIT, 4)) == list(rounds.after_update(UNIT, 4)) == []
    assert list(rounds.before_update(UNIT, 4)) == [
        Action(Kind.SHARE, 4, sends=tags(PART, (1, 0), (1, 2))),
        Action(Kind.REDUCE, 4, tags(PART, (0, 1), (2, 1)), tags(MEAN, (1, 0), (1, 2))),
        Action(Kind.MIX, 4, tags(MEAN, (0, 1), (2, 1))),
    ]
    assert set(rounds.edges(UNIT)) == {Edge(name, Unit(r, 2), UNIT) for name in (PART, MEAN) for r in (0, 2)}
