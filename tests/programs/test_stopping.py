"""A run that may be stopped does what a run does that was to end there, and nobody waits for ever."""

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import replace
from functools import partial
from threading import Thread
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.errors import ConfigError, ProtocolError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import stale
from stalegrid.programs.stopping import END_RUN, Stoppable
from stalegrid.programs.watch import Watch
from tests.programs.test_pipeline import schedules

VERDICTS = (Kind.JUDGE, Kind.HEED)


def averaged(groups: int, first: bool, period: int, lag: int, updates: int) -> Lateral:
    return Averaging(mixing_matrix("ring", groups), first, period, lag, updates)


def none(updates: int) -> Lateral:
    return NoLateral()


def reduced(groups: int, updates: int) -> Lateral:
    return AllReduce(groups)


@st.composite
def stoppable(draw: st.DrawFn) -> Stoppable:
    groups, stages, updates = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 24))
    schedule = draw(schedules(stages))
    lag = draw(st.integers(0, 4))
    averaging = st.builds(partial, st.just(averaged), st.just(groups), st.booleans(), st.integers(1, 3), st.just(lag))
    laterals = draw(st.one_of(st.just(none), st.just(partial(reduced, groups)), averaging))
    watch = st.builds(
        Watch, report_every=st.integers(1, 3), snapshot_every=st.none() | st.integers(1, 5), chunks=st.integers(0, 2)
    )
    program = Program(Grid(groups, stages), schedule, updates, laterals(updates), draw(watch), draw(st.booleans()))
    late = 0 if schedule.flush else -(-(max(schedule.windows) - 1) // schedule.micro_batches)
    return Stoppable.of(program, max(late, lag), laterals)


def run(program: Stoppable, stop: int | None) -> dict[Unit, list[Action]]:
    """Let every agent go as far as messages reach, and the observer judge; return what each has done."""
    walks = {agent: program.actions(agent) for agent in program.agents}
    due = {agent: next(walk, None) for agent, walk in walks.items()}
    done: dict[Unit, list[Action]] = {agent: [] for agent in walks}
    sent: set[Tag] = set()
    moved = True
    while moved:
        moved = False
        for agent, walk in walks.items():
            while (action := due[agent]) is not None and sent.issuperset(action.needs):
                done[agent].append(action)
                sent.update(action.sends)
                for tag in action.sends if action.kind is Kind.JUDGE else ():
                    asked = stop is not None and action.index >= stop
                    program.heard(Message(tag, action.index, (torch.tensor([asked]),)))
                due[agent] = next(walk, None)
                moved = True
    assert not any(due.values()), due
    assert {tag for actions in done.values() for a in actions for tag in a.needs} == sent
    return done


def without_verdicts(actions: Iterable[Action]) -> list[Action]:
    return [action for action in actions if action.kind not in VERDICTS]


@settings(deadline=None, max_examples=200)
@given(program=stoppable(), data=st.data())
def test_a_stopped_run_is_the_run_that_was_to_end_there(program: Stoppable, data: Any) -> None:
    stop = data.draw(st.none() | st.integers(1, program.updates))
    done = run(program, stop)
    judged = [action.index for action in done[OBSERVER] if action.kind is Kind.JUDGE]
    ends = judged[-1] + program.lead if stop is not None and judged and judged[-1] >= stop else program.updates
    assert ends <= program.updates
    shorter = program.until(ends)
    for agent in program.agents:
        assert without_verdicts(done[agent]) == list(shorter.actions(agent)), agent


@settings(deadline=None, max_examples=60)
@given(program=stoppable(), data=st.data())
def test_receivers_learn_what_is_due_as_verdicts_come(program: Stoppable, data: Any) -> None:
    done = run(program, data.draw(st.none() | st.integers(1, program.updates)))
    for agent in program.agents:
        needed = [tag for action in done[agent] for tag in action.needs]
        for edge in program.inbound(agent):
            assert list(program.due(edge)) == [tag for tag in needed if tag.edge == edge]


def simple(updates: int = 12, ahead: int = 2, **watch: Any) -> Stoppable:
    seen = Watch(**{"report_every": 2, "snapshot_every": 3, "chunks": 1, **watch})
    return Stoppable.of(Program(Grid(1, 2), stale([2, 0], 1), updates, NoLateral(), seen), ahead, none)


def test_a_receiver_waits_for_the_verdict_that_says_whether_there_is_more() -> None:
    program, got = simple(), []
    edge = Edge("activation", Unit(0, 0), Unit(0, 1))
    thread = Thread(target=lambda: got.extend(program.due(edge)), daemon=True)
    thread.start()
    program.verdicts.hear(3, 0)
    program.verdicts.hear(6, END_RUN)
    thread.join(30)
    assert not thread.is_alive()
    assert [tag.index for tag in got] == list(range(9))


def test_the_end_comes_a_lead_after_the_version_that_was_judged() -> None:
    assert [simple(ahead=ahead).lead for ahead in (0, 1, 2, 3, 5, 6)] == [3, 3, 3, 6, 6, 9]
    reports = simple(snapshot_every=None)
    assert (reports.every, reports.lead) == (2, 4)
    assert [v for v in range(13) if reports.judged(v, 12)] == [2, 4, 6]


def test_units_wait_as_long_as_a_verdict_may_take() -> None:
    program = simple(chunks=7)
    assert program.silence(program.units) == 8
    assert program.silence([OBSERVER]) == 8
    assert simple(chunks=0).silence([OBSERVER]) == 2
    assert simple(chunks=0).silence([Unit(0, 0)]) == 1


def test_what_was_done_already_is_held_against_the_shorter_run() -> None:
    program = simple(ahead=0)  # stage 0 has forwarded two batches more than it says
    walk = program.actions(Unit(0, 0))

    def walked() -> Iterator[Action]:
        for action in walk:
            if action.kind is Kind.HEED:
                program.verdicts.hear(action.index, END_RUN)
            yield action

    with pytest.raises(ProtocolError, match=r"\(0,0\) has done F6, where a run of 6 updates does B4"):
        list(walked())


def test_a_first_end_that_is_none_is_refused_before_anything_starts() -> None:
    def never(updates: int) -> Lateral:
        if updates < 10:
            raise ConfigError("the groups would never mix")
        return NoLateral()

    program = Program(Grid(1, 1), stale([0], 1), 12, NoLateral(), Watch(snapshot_every=3))
    with pytest.raises(ConfigError, match="never mix"):
        Stoppable.of(program, 0, never)
    Stoppable.of(replace(program, updates=6), 0, never)  # no verdict can end it


def test_another_process_has_heard_nothing_yet() -> None:
    program = simple()
    program.verdicts.hear(3, END_RUN)
    again: Stoppable = pickle.loads(pickle.dumps(program))
    with pytest.raises(KeyError):
        again.verdicts.known(3)
