from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from functools import partial
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging, Pushing, Tracking
from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.programs.watch import Watch

TRAINING = (Kind.FORWARD, Kind.BACKWARD, Kind.UPDATE)


def falling(stages: int) -> st.SearchStrategy[list[int]]:
    """Staleness that never increases along the stages."""
    return st.lists(st.integers(0, 7), min_size=stages, max_size=stages).map(lambda m: sorted(m, reverse=True))


@st.composite
def schedules(draw: st.DrawFn, stages: int) -> Schedule:
    micro = draw(st.integers(1, 4))
    return draw(
        st.one_of(
            falling(stages).map(lambda m: stale(m, micro)),
            st.just(gpipe(stages, micro)),
            st.just(one_f_one_b(stages, micro)),
        )
    )


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Any mix of schedule, lateral exchange and watch."""
    groups, stages, updates = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 6))
    topology = draw(st.sampled_from(["ring", "star", "complete", "one-peer-exponential"]))
    averaging = st.builds(
        Averaging,
        st.just(mixing_matrix(topology, groups)),
        adapt_first=st.booleans(),
        period=st.integers(1, 3),
        lag=st.integers(0, 4),
        updates=st.just(updates),
    )
    on_time = partial(Averaging, mixing_matrix(topology, groups), lag=0, updates=updates)
    pushing = st.integers(1, 3).map(lambda period: Pushing(on_time(adapt_first=True, period=period)))
    tracking = st.integers(1, 3).map(lambda period: Tracking(on_time(adapt_first=False, period=period)))
    watch = st.builds(
        Watch,
        report_every=st.integers(1, 3),
        snapshot_every=st.none() | st.integers(1, 3),
        chunks=st.integers(0, 2),
    )
    return Program(
        Grid(groups, stages),
        draw(schedules(stages)),
        updates,
        draw(st.one_of(st.just(NoLateral()), st.just(AllReduce(groups)), averaging, pushing, tracking)),
        draw(st.none() | watch),
        draw(st.booleans()),
        targets_travel=draw(st.booleans()),
    )


def letters(actions: Iterable[Action], kinds: Iterable[Kind] = Kind) -> list[str]:
    chosen = set(kinds)
    return [str(a) for a in actions if a.kind in chosen]


def unit_letters(program: Program, stage: int = 0) -> str:
    return " ".join(letters(program.actions(Unit(0, stage))))


def dry_run(sequences: Mapping[Unit, Iterable[Action]]) -> dict[Unit, Action]:
    """Let every agent go as far as messages reach; return where each one is stuck."""
    queues = {agent: list(reversed(list(actions))) for agent, actions in sequences.items()}
    sent: set[Tag] = set()
    moved = True
    while moved:
        moved = False
        for queue in queues.values():
            while queue and sent.issuperset(queue[-1].needs):
                sent.update(queue.pop().sends)
                moved = True
    return {agent: queue[-1] for agent, queue in queues.items() if queue}


def run_dry(program: Program) -> dict[Unit, Action]:
    return dry_run({agent: program.actions(agent) for agent in program.agents})


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), micro=st.integers(1, 4), updates=st.integers(1, 8))
def test_stale_units_run_the_sequence_of_the_paper(data: Any, stages: int, micro: int, updates: int) -> None:
    staleness = data.draw(falling(stages))
    program = Program(Grid(2, stages), stale(staleness, micro), updates)
    batches = updates * micro
    for unit in program.grid:
        m = staleness[unit.stage]
        expected = [f"F{b}" for b in range(min(m, batches))]
        for n in range(batches):
            if m + n < batches:
                expected.append(f"F{m + n}")
            expected.append(f"B{n}")
            if n % micro == micro - 1:
                expected.append(f"U{n // micro}")
        assert letters(program.actions(unit)) == expected


@settings(deadline=None)
@given(program=programs())
def test_every_batch_is_forwarded_and_backpropagated_once_in_order_and_every_update_has_its_batches(
    program: Program,
) -> None:
    micro = program.schedule.micro_batches
    batches = list(range(program.updates * micro))
    for unit in program.grid:
        actions = list(program.actions(unit))
        for kind in (Kind.FORWARD, Kind.BACKWARD):
            assert [a.index for a in actions if a.kind is kind] == batches
        again = [a.index for a in actions if a.kind is Kind.RECOMPUTE]
        assert again == (batches if program.recomputes(unit.stage) else [])
        assert [a.index for a in actions if a.kind is Kind.UPDATE] == list(range(program.updates))
        last_backward = -1
        for a in actions:
            if a.kind is Kind.BACKWARD:
                last_backward = a.index
            if a.kind is Kind.UPDATE:
                assert last_backward == (a.index + 1) * micro - 1


def measured_staleness(program: Program, unit: Unit) -> list[int]:
    """Return, by update, the largest number of updates between forward and use of its batches."""
    version, forwarded, used = 0, {}, defaultdict[int, list[int]](list)
    for a in program.actions(unit):
        if a.kind is Kind.FORWARD:
            forwarded[a.index] = version
        elif a.kind is Kind.BACKWARD:
            used[version].append(version - forwarded[a.index])
        elif a.kind is Kind.UPDATE:
            version += 1
    return [max(used[n]) for n in range(program.updates)]


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), updates=st.integers(1, 12))
def test_staleness_is_what_the_schedule_says(data: Any, stages: int, updates: int) -> None:
    schedule = data.draw(schedules(stages))
    program = Program(Grid(1, stages), schedule, updates)
    for unit in program.grid:
        measured = measured_staleness(program, unit)
        bound, micro = schedule.bound(unit.stage), schedule.micro_batches
        oldest = [min(schedule.version_of(unit.stage, n * micro + i) for i in range(micro)) for n in range(updates)]
        assert measured == [n - oldest[n] for n in range(updates)]
        assert max(measured) <= bound
        if updates > bound:
            assert measured[bound:] == [bound] * (updates - bound)
        if schedule.flush:
            assert bound == 0


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), updates=st.integers(1, 8))
def test_the_version_of_a_forward_and_the_batches_in_flight_are_what_the_schedule_says(
    data: Any, stages: int, updates: int
) -> None:
    schedule = data.draw(schedules(stages))
    program = Program(Grid(1, stages), schedule, updates, recompute=data.draw(st.booleans()))
    for unit in program.grid:
        version = in_flight = most = 0
        for a in program.actions(unit):
            if a.kind is Kind.FORWARD:
                assert schedule.version_of(unit.stage, a.index) == version
            version += a.kind is Kind.UPDATE
            in_flight += {Kind.FORWARD: 1, Kind.BACKWARD: -1}.get(a.kind, 0)
            most = max(most, in_flight)
        enough = updates * schedule.micro_batches >= schedule.windows[unit.stage]
        assert most == schedule.in_flight(unit.stage) if enough else most < schedule.in_flight(unit.stage)


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), micro=st.integers(1, 5), updates=st.integers(1, 6))
def test_with_a_delay_of_one_every_batch_has_the_version_before_its_update_which_is_at_most_one_old(
    data: Any, stages: int, micro: int, updates: int
) -> None:
    ahead = data.draw(st.lists(st.integers(0, micro), min_size=stages, max_size=stages).map(sorted))[::-1]
    schedule = Schedule(tuple(m + 1 for m in ahead), micro, delay=1)
    program = Program(Grid(1, stages), schedule, updates)
    for unit in program.grid:
        assert schedule.bound(unit.stage) == 1
        version = 0
        for a in program.actions(unit):
            if a.kind is Kind.FORWARD:
                wanted = schedule.version_of(unit.stage, a.index)
                assert wanted == max(0, a.index // micro - 1)
                assert version - 1 <= wanted <= version, "one copy is enough"
            version += a.kind is Kind.UPDATE


def test_a_second_forward_comes_just_before_its_backward_and_waits_for_nothing() -> None:
    program = Program(Grid(1, 2), stale([2, 0]), 3, recompute=True)
    assert unit_letters(program, 0) == "F0 F1 F2 G0 B0 U0 G1 B1 U1 G2 B2 U2"
    assert unit_letters(program, 1) == "F0 B0 U0 F1 B1 U1 F2 B2 U2"
    assert all(not a.needs and not a.sends for a in program.actions(Unit(0, 0)) if a.kind is Kind.RECOMPUTE)


def test_a_stage_that_has_one_batch_in_flight_needs_no_second_forward() -> None:
    for schedule, again in (
        (stale([3, 1, 0]), [True, True, False]),
        (gpipe(3, 4), [True] * 3),
        (gpipe(3, 1), [False] * 3),
        (one_f_one_b(3, 4), [True, True, False]),
    ):
        program = Program(Grid(1, 3), schedule, 2, recompute=True)
        assert [program.recomputes(k) for k in range(3)] == again
        assert not any(Program(Grid(1, 3), schedule, 2).recomputes(k) for k in range(3))


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), updates=st.integers(1, 4))
def test_second_forwards_change_no_other_action(data: Any, stages: int, updates: int) -> None:
    schedule = data.draw(schedules(stages))
    plain, again = (Program(Grid(1, stages), schedule, updates, recompute=r) for r in (False, True))
    for unit in plain.grid:
        assert [a for a in again.actions(unit) if a.kind is not Kind.RECOMPUTE] == list(plain.actions(unit))


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), updates=st.integers(1, 12))
def test_staleness_of_single_batches_is_min_n_m(data: Any, stages: int, updates: int) -> None:
    staleness = data.draw(falling(stages))
    program = Program(Grid(1, stages), stale(staleness), updates)
    for unit in program.grid:
        m = staleness[unit.stage]
        assert measured_staleness(program, unit) == [min(n, m) for n in range(updates)]
        assert program.schedule.bound(unit.stage) == m


def test_gpipe() -> None:
    program = Program(Grid(1, 2), gpipe(2, 3), 2)
    expected = "F0 F1 F2 B0 B1 B2 U0 F3 F4 F5 B3 B4 B5 U1"
    assert [unit_letters(program, k) for k in range(2)] == [expected, expected]


def test_1f1b() -> None:
    program = Program(Grid(1, 3), one_f_one_b(3, 4), 1)
    assert [unit_letters(program, k) for k in range(3)] == [
        "F0 F1 F2 B0 F3 B1 B2 B3 U0",
        "F0 F1 B0 F2 B1 F3 B2 B3 U0",
        "F0 B0 F1 B1 F2 B2 F3 B3 U0",
    ]


def test_1f1b_with_fewer_micro_batches_than_stages_and_a_second_update() -> None:
    program = Program(Grid(1, 4), one_f_one_b(4, 2), 2)
    assert [unit_letters(program, k) for k in range(4)] == [
        "F0 F1 B0 B1 U0 F2 F3 B2 B3 U1",
        "F0 F1 B0 B1 U0 F2 F3 B2 B3 U1",
        "F0 F1 B0 B1 U0 F2 F3 B2 B3 U1",
        "F0 B0 F1 B1 U0 F2 B2 F3 B3 U1",
    ]


@settings(deadline=None)
@given(stages=st.integers(1, 5), micro=st.integers(1, 8), updates=st.integers(1, 3))
def test_1f1b_keeps_at_most_one_batch_a_stage_above_in_flight(stages: int, micro: int, updates: int) -> None:
    program = Program(Grid(1, stages), one_f_one_b(stages, micro), updates)
    for unit in program.grid:
        in_flight = most = 0
        for a in program.actions(unit):
            in_flight += {Kind.FORWARD: 1, Kind.BACKWARD: -1}.get(a.kind, 0)
            most = max(most, in_flight)
            assert a.kind is not Kind.UPDATE or in_flight == 0
        assert most == min(micro, stages - unit.stage)


def test_lateral_actions_stand_around_the_update() -> None:
    pair = mixing_matrix("ring", 2)

    def with_lateral(lateral: Any) -> str:
        return unit_letters(Program(Grid(2, 1), stale([1]), 2, lateral))

    assert with_lateral(Averaging(pair, False, 1, 0, 2)) == "S0 F0 F1 B0 U0 M0 S1 B1 U1 M1"
    assert with_lateral(Averaging(pair, True, 1, 0, 2)) == "F0 F1 B0 U0 S0 M0 B1 U1 S1 M1"
    assert with_lateral(Pushing(Averaging(pair, True, 2, 0, 2))) == "F0 F1 B0 U0 S0 B1 U1 S1 M1"
    assert with_lateral(Tracking(Averaging(pair, False, 2, 0, 2))) == "F0 F1 B0 R0 U0 S1 B1 R1 U1 M1"
    assert with_lateral(AllReduce(2)) == "F0 F1 B0 S0 R0 M0 U0 B1 S1 R1 M1 U1"


def test_messages_of_a_middle_stage() -> None:
    program = Program(Grid(2, 3), stale([2, 0, 0]), 1)
    below, here, above = Unit(1, 0), Unit(1, 1), Unit(1, 2)
    forward, backward, update = program.actions(here)
    assert forward == Action(
        Kind.FORWARD, 0, (Tag(Edge("activation", below, here), 0),), (Tag(Edge("activation", here, above), 0),)
    )
    assert backward == Action(
        Kind.BACKWARD, 0, (Tag(Edge("gradient", above, here), 0),), (Tag(Edge("gradient", here, below), 0),)
    )
    assert update == Action(Kind.UPDATE, 0)


def test_below_all_that_is_trained_the_program_is_the_same_without_second_forwards() -> None:
    usual = Program(Grid(1, 3), stale([2, 1, 0]), 4, recompute=True)
    frozen = Program(Grid(1, 3), stale([2, 1, 0]), 4, recompute=True, frozen=1)
    assert [frozen.recomputes(k) for k in range(3)] == [False, True, False]
    for unit in frozen.units:
        without = [a for a in usual.actions(unit) if unit.stage or a.kind is not Kind.RECOMPUTE]
        assert list(frozen.actions(unit)) == without
    edges = [Edge("gradient", Unit(0, k), Unit(0, k - 1)) for k in (1, 2)]
    assert [frozen.carries_gradient(edge) for edge in edges] == [False, True]


def test_the_only_stage_exchanges_nothing_within_its_group() -> None:
    for travel in (False, True):
        program = Program(Grid(1, 1), stale([3]), 5, targets_travel=travel)
        assert all(not a.needs and not a.sends for a in program.actions(Unit(0, 0)))
        assert program.inbound(Unit(0, 0)) == []


@pytest.mark.parametrize("stages", [2, 3])
def test_targets_travel_from_the_first_stage_to_the_last_beside_the_activation(stages: int) -> None:
    program = Program(Grid(2, stages), gpipe(stages, 1), 1, targets_travel=True)
    first, below, last = Unit(1, 0), Unit(1, stages - 2), Unit(1, stages - 1)
    targets = Edge("target", first, last)
    sent = (Tag(Edge("activation", first, Unit(1, 1)), 0), Tag(targets, 0))
    assert next(program.actions(first)) == Action(Kind.FORWARD, 0, (), sent)
    needed = (Tag(Edge("activation", below, last), 0), Tag(targets, 0))
    assert next(program.actions(last)) == Action(Kind.FORWARD, 0, needed)
    assert targets in program.inbound(last)


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), updates=st.integers(1, 4))
def test_targets_that_travel_change_nothing_but_messages(data: Any, stages: int, updates: int) -> None:
    schedule = data.draw(schedules(stages))
    plain, travelling = (Program(Grid(2, stages), schedule, updates, targets_travel=t) for t in (False, True))

    def without(tags: Iterable[Tag]) -> list[Tag]:
        return [tag for tag in tags if tag.edge.name != "target"]

    for unit in plain.grid:
        pairs = zip(plain.actions(unit), travelling.actions(unit), strict=True)
        assert all(str(a) == str(b) and list(a.needs) == without(b.needs) for a, b in pairs)
        pairs = zip(plain.actions(unit), travelling.actions(unit), strict=True)
        assert all(list(a.sends) == without(b.sends) for a, b in pairs)


@settings(deadline=None)
@given(program=programs())
def test_what_is_needed_is_sent_once_and_in_the_order_in_which_it_is_needed(program: Program) -> None:
    sent, needed = defaultdict[Edge, list[int]](list), defaultdict[Edge, list[int]](list)
    for agent in program.agents:
        for action in program.actions(agent):
            for tag in action.sends:
                assert tag.edge.source == agent
                sent[tag.edge].append(tag.index)
            for tag in action.needs:
                assert tag.edge.target == agent
                needed[tag.edge].append(tag.index)
    assert sent == needed
    assert all(max(Counter(indices).values()) == 1 for indices in sent.values())
    for agent in program.agents:
        inbound = program.inbound(agent)
        used = {edge for edge in needed if edge.target == agent}
        assert inbound == sorted(set(inbound))
        assert used <= set(inbound)
        if every_turn_comes(program):
            assert used == set(inbound)


def rounds_of(lateral: Lateral) -> Lateral:
    """Return when groups mix, of those that do more than that too."""
    return lateral.rounds if isinstance(lateral, Pushing | Tracking) else lateral


def every_turn_comes(program: Program) -> bool:
    """Return False for a run that ends before every turn of its mixing has come."""
    rounds = rounds_of(program.lateral)
    if not isinstance(rounds, Averaging):
        return True
    turns = {rounds.turn(n) for n in range(program.updates)} - {None}
    return len({turn % len(rounds.mixing.matrices) for turn in turns}) == len(rounds.mixing.matrices)


@settings(deadline=None)
@given(program=programs())
def test_feasible_programs_run_to_their_end(program: Program) -> None:
    assert run_dry(program) == {}


@settings(deadline=None)
@given(
    windows=st.lists(st.integers(1, 6), min_size=2, max_size=5),
    micro=st.integers(1, 3),
    groups=st.integers(1, 2),
    flush=st.booleans(),
)
def test_a_program_deadlocks_if_and_only_if_a_stage_runs_further_ahead_than_the_one_below(
    windows: list[int], micro: int, groups: int, flush: bool
) -> None:
    # As many micro-batches as the largest window: a flush then cuts no window short.
    micro = max(windows) if flush else micro
    schedule = Schedule(tuple(windows), micro, flush)
    program = Program(Grid(groups, len(windows)), schedule, max(windows) + 1)
    stuck = run_dry(program)
    feasible = all(a >= b for a, b in pairwise(windows))
    assert (stuck == {}) == feasible
    if not feasible:
        assert set(stuck) <= set(program.grid)
        assert any(a.kind is Kind.BACKWARD for a in stuck.values())
        assert any(a.kind is Kind.FORWARD for a in stuck.values())


def test_where_an_infeasible_program_gets_stuck() -> None:
    stuck = run_dry(Program(Grid(1, 3), Schedule((1, 2, 1)), 4))
    assert {unit: str(action) for unit, action in stuck.items()} == {
        Unit(0, 0): "B0",
        Unit(0, 1): "F1",
        Unit(0, 2): "F1",
    }


@pytest.mark.parametrize(
    ("staleness", "busy"),
    [([0], True), ([2, 1, 0], True), ([4, 2, 0], True), ([2, 2, 0], False), ([1, 0, 0], False)],
)
def test_all_stages_can_be_busy_if_staleness_falls_at_every_stage(staleness: list[int], busy: bool) -> None:
    assert stale(staleness).all_busy is busy


def test_with_a_flush_stages_are_never_all_busy() -> None:
    assert not one_f_one_b(3, 8).all_busy


def test_negative_staleness_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"negative \(staleness: 2,-1,-1, stage: 1\)"):
        stale([2, -1, -1])


def test_increasing_staleness_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"staleness: 4,1,2,0, stage 1: 1, stage 2: 2\): stage 1 would wait"):
        stale([4, 1, 2, 0])


def test_a_schedule_of_another_number_of_stages_is_refused() -> None:
    with pytest.raises(ConfigError, match="schedule: 2, grid: 3"):
        Program(Grid(1, 3), stale([1, 0]), 1)


def test_a_program_without_updates_is_refused() -> None:
    with pytest.raises(ConfigError, match="updates: 0"):
        Program(Grid(1, 1), stale([0]), 0)


def test_units_report_and_send_snapshots_when_the_watch_says_and_at_the_end() -> None:
    program = Program(Grid(1, 1), stale([0]), 5, watch=Watch(report_every=2, snapshot_every=3))
    assert unit_letters(program) == "F0 B0 U0 F1 B1 U1 L1 F2 B2 U2 V3 F3 B3 U3 L3 F4 B4 U4 L4 V5"


def test_the_observer_takes_from_every_unit_and_evaluates_in_chunks() -> None:
    program = Program(Grid(2, 1), stale([0]), 3, watch=Watch(report_every=2, snapshot_every=2, chunks=2))
    assert letters(program.actions(OBSERVER)) == ["L1", "C2", "E0", "E1", "L2", "C3", "E0", "E1"]
    report, collect, evaluate = list(program.actions(OBSERVER))[:3]
    assert report.needs == tuple(Tag(Edge("report", unit, OBSERVER), 1) for unit in program.grid)
    assert collect.needs == tuple(Tag(Edge("snapshot", unit, OBSERVER), 2) for unit in program.grid)
    assert evaluate.needs == ()


def test_without_a_watch_there_is_no_observer_and_nobody_reports() -> None:
    program = Program(Grid(2, 2), stale([2, 0]), 3)
    assert program.agents == list(program.grid)
    assert all(a.kind in TRAINING for unit in program.grid for a in program.actions(unit))


def test_with_a_watch_the_observer_comes_last() -> None:
    assert Program(Grid(2, 1), stale([0]), 3, watch=Watch()).agents == [Unit(0, 0), Unit(1, 0), OBSERVER]


def test_a_tag_prints_its_edge_and_index() -> None:
    assert str(Tag(Edge("gradient", Unit(0, 2), Unit(0, 1)), 7)) == "gradient (0,2)->(0,1) #7"
