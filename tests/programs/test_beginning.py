"""A program that begins later is the one that begins at 0, with other numbers, and with nothing from before."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging, Pushing, Tracking
from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Kind, Tag
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import stale
from stalegrid.programs.stopping import Stoppable
from stalegrid.programs.watch import Watch
from tests.programs.test_pipeline import programs, rounds_of, run_dry
from tests.programs.test_ties import ties_of

OF_BATCHES = (Kind.FORWARD, Kind.RECOMPUTE, Kind.BACKWARD, Kind.KEEP)


def later(program: Program, begins: int) -> Program:
    """Return a program that makes as many updates, and begins with a later one."""
    schedule, lateral, rounds = replace(program.schedule, begins=begins), program.lateral, rounds_of(program.lateral)
    if isinstance(rounds, Averaging):
        rounds = replace(rounds, begins=begins, updates=rounds.updates + begins)
        lateral = replace(lateral, rounds=rounds) if isinstance(lateral, Pushing | Tracking) else rounds
    return replace(program, schedule=schedule, updates=program.updates + begins, lateral=lateral)


def numbered(actions: list[Action], program: Program, begins: int) -> list[Action]:
    """Return actions as they are numbered in a program that begins later."""
    batches = begins * program.schedule.micro_batches

    def tag(one: Tag) -> Tag:
        of_batch = one.edge.name in ("activation", "gradient", "target", "tie-weights", "tie-gradient")
        return Tag(one.edge, one.index + (batches if of_batch else begins))

    return [
        Action(
            a.kind,
            a.index + (0 if a.kind is Kind.EVALUATE else batches if a.kind in OF_BATCHES else begins),
            tuple(map(tag, a.needs)),
            tuple(map(tag, a.sends)),
        )
        for a in actions
    ]


@settings(deadline=None, max_examples=60)
@given(data=st.data(), plain=programs(), begins=st.integers(1, 6))
def test_it_does_the_same_with_other_numbers(data: st.DataObject, plain: Program, begins: int) -> None:
    rounds = rounds_of(plain.lateral)
    period = rounds.period if isinstance(rounds, Averaging) else 1
    matrices = len(rounds.mixing.matrices) if isinstance(rounds, Averaging) else 1
    begins *= period * matrices  # groups mix at multiples of the period, with neighbours that take turns
    watch = None if plain.watch is None else Watch(1, None, plain.watch.chunks)
    program = replace(plain, ties=data.draw(ties_of(plain)), watch=watch)
    for agent in program.agents:
        assert list(later(program, begins).actions(agent)) == numbered(list(program.actions(agent)), program, begins)


@settings(deadline=None, max_examples=60)
@given(data=st.data(), plain=programs(), begins=st.integers(1, 5))
def test_it_waits_for_nothing_from_before(data: st.DataObject, plain: Program, begins: int) -> None:
    program = later(replace(plain, ties=data.draw(ties_of(plain))), begins)
    assert run_dry(program) == {}


def test_the_first_verdict_is_of_a_version_after_the_beginning() -> None:
    begun = later(Program(Grid(1, 2), stale([1, 0]), 9, watch=Watch(report_every=2)), 4)
    program = Stoppable.of(begun, 1, lambda updates: begun.lateral)
    judged = [n for n in range(20) if program.judged(n, program.updates)]
    assert judged == [6, 8, 10]


def test_weights_that_are_mirrored_are_those_of_the_beginning() -> None:
    schedule = replace(stale([2, 0]), begins=5)
    assert [schedule.version_of(0, batch) for batch in range(5, 10)] == [5, 5, 5, 6, 7]
    assert [schedule.renews(0, batch) for batch in range(5, 10)] == [False, False, False, True, True]
    assert replace(stale([2, 0]), delay=1, begins=5).version_of(0, 5) == 5


def test_nobody_mixes_with_what_was_shared_before() -> None:
    rounds = Averaging(mixing_matrix("ring", 3), False, 1, 2, updates=9, begins=4)
    assert [n for n in range(9) if rounds.turn(n) is not None] == [6, 7, 8]


def test_a_run_that_would_begin_at_its_end_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"nothing is left to train \(updates: 5, the run begins after: 5\)"):
        Program(Grid(1, 1), replace(stale([0]), begins=5), 5)


def test_all_reduce_needs_nothing_from_before() -> None:
    program = later(Program(Grid(2, 1), stale([0]), 2, AllReduce(2)), 3)
    assert [str(a) for a in program.actions(Unit(0, 0))][:3] == ["F3", "B3", "S3"]
