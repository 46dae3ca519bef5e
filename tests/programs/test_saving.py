"""Saves are a consistent cut: what crosses it is known, and what comes after it is the rest of the same run."""

from collections import defaultdict
from dataclasses import replace
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.saving import LEAVE, SAVE, Saves
from stalegrid.programs.schedules import stale
from stalegrid.programs.stopping import ASKED, Stoppable, Verdicts
from tests.programs.test_beginning import later
from tests.programs.test_pipeline import programs, run_dry
from tests.programs.test_stopping import Saying, judged_by, run, sayings, simple, stoppable, without_verdicts
from tests.programs.test_ties import ties_of
from tests.programs.walking import needed

SAVING = (Kind.KEEP, Kind.SAVE, Kind.LOAD, Kind.REVIVE)


@st.composite
def saved(draw: st.DrawFn) -> tuple[Program, int]:
    """A program that is saved, and a version at which it is."""
    plain = draw(programs().filter(lambda p: p.updates > 1))
    begins = draw(st.sampled_from([0, 0, 1, 3]))
    every = draw(st.integers(1, plain.updates - 1).filter(lambda n: begins // n < (begins + plain.updates - 1) // n))
    program = later(replace(plain, ties=draw(ties_of(plain)), saves=Saves(every)), begins)
    return program, draw(st.sampled_from([n for n in range(begins + 1, program.updates) if program.saved(n)]))


def before(program: Program, agent: Unit, version: int) -> list[Action]:
    """Return what an agent does up to a save."""
    done = []
    for action in program.actions(agent):
        if action.kind is Kind.SAVE and action.index == version:
            return done
        done.append(action)
    raise AssertionError(f"{agent} is never saved at {version}")


@settings(deadline=None, max_examples=200)
@given(found=saved())
def test_what_crosses_a_cut_is_what_was_sent_before_it_and_not_taken(found: tuple[Program, int]) -> None:
    program, version = found
    sent: dict[Edge, list[Tag]] = defaultdict(list)
    taken: dict[Edge, list[Tag]] = defaultdict(list)
    for agent in program.agents:
        for action in before(program, agent, version):
            for tag in action.sends:
                sent[tag.edge].append(tag)
            for tag in action.needs:
                taken[tag.edge].append(tag)
    for edge in {*sent, *taken}:
        assert sent[edge][: len(taken[edge])] == taken[edge]
        assert [tag for tag in sent[edge] if version in program.crossing(tag)] == sent[edge][len(taken[edge]) :]


@settings(deadline=None, max_examples=200)
@given(found=saved())
def test_a_batch_in_flight_was_kept_when_it_was_forwarded(found: tuple[Program, int]) -> None:
    program, version = found
    for unit in program.units:
        done = before(program, unit, version)
        forwarded = [a.index for a in done if a.kind is Kind.FORWARD]
        flight = [b for b in forwarded if b not in {a.index for a in done if a.kind is Kind.BACKWARD}]
        first = program.schedule.begins * program.schedule.micro_batches
        assert first + len(forwarded) == program.issued(unit, version)
        assert [b for b in forwarded if version in program.flight(unit, b)] == flight
        assert set(flight) <= {a.index for a in done if a.kind is Kind.KEEP}


@settings(deadline=None, max_examples=200)
@given(found=saved())
@pytest.mark.thorough
def test_a_resumed_run_is_the_rest_of_the_run(found: tuple[Program, int]) -> None:
    program, version = found
    again = replace(program, saves=replace(program.saves, since=version))
    assert run_dry(again) == {}
    for agent in program.agents:
        done = before(program, agent, version)
        load, *rest = again.actions(agent)
        flight = [a for a in rest if a.kind is Kind.REVIVE]
        assert load.kind is Kind.LOAD
        assert [a for a in rest if a.kind is not Kind.REVIVE] == list(program.actions(agent))[len(done) + 1 :]
        assert rest[: len(flight)] == flight
        if agent != OBSERVER:
            forwarded = {a.index for a in done if a.kind is Kind.FORWARD}
            assert {a.index for a in flight} == forwarded - {a.index for a in done if a.kind is Kind.BACKWARD}
    for agent in program.agents:
        for edge in again.inbound(agent):
            sent = [tag for action in again.actions(edge.source) for tag in action.sends if tag.edge == edge]
            assert needed(again, edge) == sent


@settings(deadline=None, max_examples=50)
@given(program=programs())
def test_nothing_is_saved_unless_it_is_asked_for(program: Program) -> None:
    assert not any(a.kind in SAVING for agent in program.agents for a in program.actions(agent))


def test_the_end_of_a_run_is_not_saved() -> None:
    program = Program(Grid(1, 2), stale([2, 0]), 4, saves=Saves(2))
    assert before(program, Unit(0, 0), 2)
    with pytest.raises(AssertionError, match="never saved"):
        before(program, Unit(0, 0), 4)


@settings(deadline=None, max_examples=150)
@given(program=stoppable(), say=sayings(), data=st.data())
def test_whoever_asks_has_all_agents_save_one_version(program: Stoppable, say: Saying, data: Any) -> None:
    program = replace(program, asks=True)
    some = data.draw(st.sets(st.integers(1, program.updates)))
    done = run(program, None, lambda version: (SAVE if version in some else 0, say(version)[1]))
    asked = [v for v in judged_by(program.asker, done) if v in some]
    assert all(b - a >= program.delay for a, b in pairwise(judged_by(program.asker, done)))
    for agent in program.agents:
        assert [a.index for a in done[agent] if a.kind is Kind.SAVE] == [v + program.notice for v in asked]
    # Other than that, the run is the one in which nobody asks.
    plain = run(replace(program, verdicts=Verdicts()), None, say)
    assert {a: [x for x in acts if x.kind not in SAVING] for a, acts in done.items()} == plain
    bare = run(replace(program, verdicts=Verdicts(), asks=False), None)
    for agent in program.agents:
        assert without_verdicts(plain[agent]) == without_verdicts(bare[agent])


@settings(deadline=None, max_examples=200)
@given(program=stoppable(), say=sayings(), data=st.data())
def test_a_run_that_leaves_ends_after_a_save_of_all_and_nobody_waits(
    program: Stoppable, say: Saying, data: Any
) -> None:
    program = replace(program, asks=True, saves=Saves(data.draw(st.none() | st.integers(1, 5))))
    stop = data.draw(st.none() | st.integers(1, program.updates))
    version = data.draw(st.integers(1, program.updates))
    done = run(program, stop, lambda at: (SAVE | LEAVE if at >= version else 0, say(at)[1]))
    last = {agent: next(a for a in reversed(done[agent]) if a.kind is not Kind.DISCARD) for agent in program.agents}
    asked = [v for v in judged_by(program.asker, done) if v >= version]
    if program.left is not None:
        assert program.left == asked[0] + program.notice
        assert {(a.kind, a.index) for a in last.values()} == {(Kind.SAVE, program.left)}
        return
    # A callback has ended it first, or it was nearly at its end.
    looked = judged_by(OBSERVER, done)
    stopped = stop is not None and bool(looked) and looked[-1] >= stop
    ends = looked[-1] + program.lead if stopped else program.updates
    assert stopped or not asked
    assert {a.index + 1 for unit in program.units for a in done[unit][-9:] if a.kind is Kind.UPDATE} >= {ends}
    shorter = program.until(ends)
    for agent in program.agents:
        kept = [a for a in without_verdicts(done[agent]) if a.kind is not Kind.KEEP]
        plain = [a for a in shorter.actions(agent) if a.kind is not Kind.KEEP]
        assert kept == plain


def test_an_end_that_was_asked_for_goes_before_a_save() -> None:
    program = simple(asks=True)
    done = run(program, 3, lambda version: (SAVE | LEAVE if version > 1 else 0, 1))
    assert not any(a.kind is Kind.SAVE for actions in done.values() for a in actions)
    assert program.left is None
    assert max(a.index for a in done[Unit(0, 0)] if a.kind is Kind.UPDATE) == 3 + program.lead - 1


def test_who_leaves_a_long_run_does_not_go_through_the_rest_of_it() -> None:
    def say(version: int) -> tuple[int, int]:
        return SAVE | LEAVE if version >= 3 else 0, 1

    left = run(simple(updates=10**12, asks=True), None, say)
    assert left == run(simple(updates=30, asks=True), None, say)
    assert sum(map(len, left.values())) < 200


@settings(deadline=None, max_examples=100)
@given(program=stoppable(), say=sayings(), data=st.data())
def test_a_run_that_may_be_asked_goes_on_and_may_be_asked_again(program: Stoppable, say: Saying, data: Any) -> None:
    if program.updates < 2:
        return
    since = data.draw(st.integers(1, program.updates - 1))
    program = replace(program, asks=True, saves=Saves(since=since))
    done = run(program, None, say)
    bare = replace(program, verdicts=Verdicts(), asks=False)
    again = run(bare, None)
    for agent in program.agents:
        mine, theirs = (without_verdicts(d[agent]) for d in (done, again))
        assert [(a.kind, a.index, a.needs) for a in mine] == [(a.kind, a.index, a.needs) for a in theirs]
    heard = [a.index for a in done[program.asker] if a.kind is Kind.HEED and a.needs[0].edge.name == ASKED]
    assert heard[:1] == ([since] if since + program.notice < program.updates else [])
