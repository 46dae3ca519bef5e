"""Saves are a consistent cut: what crosses it is known, and what comes after it is the rest of the same run."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.saving import Saves
from stalegrid.programs.schedules import stale
from stalegrid.programs.stopping import END_RUN, LEAVE, SAVE, Stoppable
from tests.programs.test_beginning import later
from tests.programs.test_pipeline import programs, run_dry
from tests.programs.test_stopping import run, simple, stoppable
from tests.programs.test_ties import ties_of

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
            assert list(again.due(edge)) == sent


@settings(deadline=None, max_examples=50)
@given(program=programs())
def test_nothing_is_saved_unless_it_is_asked_for(program: Program) -> None:
    assert not any(a.kind in SAVING for agent in program.agents for a in program.actions(agent))


def test_the_end_of_a_run_is_not_saved() -> None:
    program = Program(Grid(1, 2), stale([2, 0]), 4, saves=Saves(2))
    assert before(program, Unit(0, 0), 2)
    with pytest.raises(AssertionError, match="never saved"):
        before(program, Unit(0, 0), 4)


def asked(program: Stoppable, codes: dict[int, int]) -> dict[Unit, list[Action]]:
    """Let every agent go as far as messages reach, with verdicts that say what they are told to."""
    walks = {agent: program.actions(agent) for agent in program.agents}
    due = {agent: next(walk, None) for agent, walk in walks.items()}
    done: dict[Unit, list[Action]] = {agent: [] for agent in walks}
    sent: set[Tag] = set()
    while able := [a for a, action in due.items() if action is not None and sent.issuperset(action.needs)]:
        for agent in able:
            action = due[agent]
            assert action is not None
            done[agent].append(action)
            sent.update(action.sends)
            for tag in action.sends if action.kind is Kind.JUDGE else ():
                program.heard(Message(tag, action.index, (torch.tensor([codes.get(action.index, 0)]),)))
            due[agent] = next(walks[agent], None)
    assert not any(due.values()), due
    assert {tag for actions in done.values() for a in actions for tag in a.needs} == sent
    return done


@settings(deadline=None, max_examples=150)
@given(program=stoppable(), data=st.data(), often=st.booleans())
def test_a_verdict_has_all_agents_save_one_version(program: Stoppable, data: Any, often: bool) -> None:
    program = replace(program, often=often)
    judged = [v for v in range(1, program.updates) if program.judged(v, program.updates)]
    some = data.draw(st.sets(st.sampled_from(judged)) if judged else st.just(set()))
    done = asked(program, dict.fromkeys(some, SAVE))
    for agent in program.agents:
        assert [a.index for a in done[agent] if a.kind is Kind.SAVE] == [v + program.lead for v in sorted(some)]
    # Other than that, the run is the one in which nobody asks.
    plain = run(replace(program, verdicts=type(program.verdicts)()), None)
    assert {a: [x for x in acts if x.kind not in SAVING] for a, acts in done.items()} == plain


@settings(deadline=None, max_examples=150)
@given(program=stoppable(), data=st.data())
def test_a_run_that_leaves_ends_after_a_save_of_all_and_nobody_waits(program: Stoppable, data: Any) -> None:
    judged = [v for v in range(1, program.updates) if program.judged(v, program.updates)]
    if not judged:
        return
    version = data.draw(st.sampled_from(judged))
    done = asked(program, {v: SAVE | LEAVE for v in judged if v >= version})
    assert program.left == version + program.lead
    for agent in program.agents:
        last = next(a for a in reversed(done[agent]) if a.kind is not Kind.DISCARD)
        assert (last.kind, last.index) == (Kind.SAVE, version + program.lead)


def test_an_end_that_was_asked_for_goes_before_a_save() -> None:
    program = simple()
    done = asked(program, {3: END_RUN | SAVE | LEAVE})
    assert not any(a.kind is Kind.SAVE for actions in done.values() for a in actions)
    assert program.left is None
    assert max(a.index for a in done[Unit(0, 0)] if a.kind is Kind.UPDATE) == 3 + program.lead - 1


def test_who_leaves_a_long_run_does_not_go_through_the_rest_of_it() -> None:
    program = simple()
    left = asked(replace(program, updates=10**12), {3: SAVE | LEAVE})
    assert left == asked(replace(program, verdicts=type(program.verdicts)()), {3: SAVE | LEAVE})
    assert sum(map(len, left.values())) < 200
