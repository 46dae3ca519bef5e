"""A run that may be stopped does what a run does that was to end there, and nobody waits for ever."""

import pickle
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging, Pushing, Tracking
from stalegrid.errors import ConfigError, ProtocolError
from stalegrid.programs.actions import Action, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Back, Program
from stalegrid.programs.saving import LEAVE, SAVE, Saves
from stalegrid.programs.schedules import stale
from stalegrid.programs.stopping import ASKED, END_RUN, VERDICT, Stoppable, Verdicts
from stalegrid.programs.watch import Watch
from tests.programs.test_pipeline import schedules

VERDICTS = (Kind.JUDGE, Kind.HEED, Kind.DISCARD)

Saying = Callable[[int], tuple[int, int]]
"""What is said at a version of what is asked: a code, and when it is said next."""


def averaged(groups: int, first: bool, period: int, lag: int, updates: int) -> Lateral:
    return Averaging(mixing_matrix("ring", groups), first, period, lag, updates)


def pushed(groups: int, first: bool, period: int, lag: int, updates: int) -> Lateral:
    rounds = Averaging(mixing_matrix("ring", groups), first, period, 0, updates)
    return Pushing(rounds) if first else Tracking(rounds)


def none(updates: int) -> Lateral:
    return NoLateral()


def reduced(groups: int, updates: int) -> Lateral:
    return AllReduce(groups)


@st.composite
def stoppable(draw: st.DrawFn) -> Stoppable:
    groups, stages, updates = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 24))
    schedule = draw(schedules(stages))
    lag = draw(st.integers(0, 4))
    rules = st.sampled_from([averaged, pushed])
    averaging = st.builds(partial, rules, st.just(groups), st.booleans(), st.integers(1, 3), st.just(lag))
    laterals = draw(st.one_of(st.just(none), st.just(partial(reduced, groups)), averaging))
    watch = st.builds(
        Watch, report_every=st.integers(1, 3), snapshot_every=st.none() | st.integers(1, 5), chunks=st.integers(0, 2)
    )
    program = Program(Grid(groups, stages), schedule, updates, laterals(updates), draw(watch), draw(st.booleans()))
    late = 0 if schedule.flush else -(-(max(schedule.windows) - 1) // schedule.micro_batches)
    apart = draw(st.integers(0, 2))
    return Stoppable.of(program, max(late, lag), laterals, asks=draw(st.booleans()), apart=apart)


def sayings(most: int = 5) -> st.SearchStrategy[Saying]:
    """Nothing is asked, and after how many updates it is asked again differs."""
    return st.integers(0, 10**6).map(lambda seed: lambda version: (0, 1 + (seed >> version % 16) % most))


def run(program: Stoppable, stop: int | None, say: Saying = lambda version: (0, 1)) -> dict[Unit, list[Action]]:
    """Let every agent go as far as messages reach, and say what it is told to; return what each has done."""
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
                # First, as engines do: what comes next never depends on what was just said.
                due[agent] = next(walk, None)
                sent.update(action.sends)
                for tag in (tag for tag in action.sends if tag.edge.name in (VERDICT, ASKED)):
                    ends = [stop is not None and action.index >= stop]
                    said = say(action.index) if tag.edge.name == ASKED else ends
                    program.heard(Message(tag, action.index, (torch.tensor(said),)))
                moved = True
    assert not any(due.values()), due
    assert {tag for actions in done.values() for a in actions for tag in a.needs} == sent
    return done


def without_verdicts(actions: Iterable[Action]) -> list[Action]:
    return [action for action in actions if action.kind not in VERDICTS]


@settings(deadline=None, max_examples=200)
@given(program=stoppable(), say=sayings(), data=st.data())
def test_a_stopped_run_is_the_run_that_was_to_end_there(program: Stoppable, say: Saying, data: Any) -> None:
    stop = data.draw(st.none() | st.integers(1, program.updates))
    done = run(program, stop, say)
    judged = judged_by(OBSERVER, done)
    ends = judged[-1] + program.lead if stop is not None and judged and judged[-1] >= stop else program.updates
    assert ends <= program.updates
    shorter = program.until(ends)
    for agent in program.agents:
        assert without_verdicts(done[agent]) == list(shorter.actions(agent)), agent


@settings(deadline=None, max_examples=60)
@given(program=stoppable(), say=sayings(), data=st.data())
def test_messages_of_an_edge_are_taken_in_the_order_in_which_they_were_sent(
    program: Stoppable, say: Saying, data: Any
) -> None:
    done = run(program, data.draw(st.none() | st.integers(1, program.updates)), say)
    for agent in program.agents:
        for edge in program.inbound(agent):
            sent = [tag for action in done[edge.source] for tag in action.sends if tag.edge == edge]
            assert [tag for action in done[agent] for tag in action.needs if tag.edge == edge] == sent


def judged_by(agent: Unit, done: dict[Unit, list[Action]]) -> list[int]:
    return [action.index for action in done[agent] if action.kind is Kind.JUDGE]


def simple(
    updates: int = 12, ahead: int = 2, *, ends: bool = True, asks: bool = False, apart: int = 0, **watch: Any
) -> Stoppable:
    seen = Watch(**{"report_every": 2, "snapshot_every": 3, "chunks": 1, **watch})
    program = Program(Grid(1, 2), stale([2, 0], 1), updates, NoLateral(), seen)
    return Stoppable.of(program, ahead, none, ends=ends, asks=asks, apart=apart)


def test_the_end_comes_a_lead_after_the_version_that_was_judged() -> None:
    assert [simple(ahead=ahead).lead for ahead in (0, 1, 2, 3, 5, 6)] == [3, 3, 3, 6, 6, 9]
    reports = simple(snapshot_every=None)
    assert (reports.every, reports.lead) == (2, 4)
    assert [v for v in range(13) if reports.judged(v, 12)] == [2, 4, 6]


def test_units_wait_as_long_as_a_verdict_may_take() -> None:
    program = simple(chunks=7)
    assert simple(chunks=7, ends=False, asks=True).silence(program.units) == 1
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
                program.verdicts.hear(VERDICT, action.index, [END_RUN])
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
    program.verdicts.hear(VERDICT, 3, [END_RUN])
    again: Stoppable = pickle.loads(pickle.dumps(program))
    with pytest.raises(KeyError):
        again.verdicts.known(VERDICT, 3)


def test_what_is_asked_is_said_by_the_last_stage_whatever_is_reported() -> None:
    program = simple(updates=40, ends=False, asks=True, report_every=40, snapshot_every=None)
    assert program.asker == Unit(0, 1)
    assert (program.delay, program.notice) == (1, 3)
    done = run(program, None, lambda version: (0, {1: 2, 3: 7}.get(version, 200)))
    assert judged_by(program.asker, done) == [1, 3, 10]
    for agent in program.agents:
        assert [a.index for a in done[agent] if a.kind is Kind.HEED] == [1, 3, 10]
    assert judged_by(OBSERVER, done) == []


def test_whoever_is_asked_leaves_within_staleness_and_a_few_updates() -> None:
    for apart in (0, 3):
        program = simple(updates=40, ends=False, asks=True, apart=apart, report_every=40, snapshot_every=None)
        done = run(program, None, lambda version: (SAVE | LEAVE if version > 20 else 0, 1))
        last = [a.index for a in done[Unit(0, 0)] if a.kind is Kind.SAVE]
        assert last == [program.left]
        assert 20 + program.notice < last[0] <= 20 + program.delay + program.notice
        assert program.notice == program.ahead + apart + 1


def test_a_unit_goes_on_without_hearing_what_is_asked_until_it_is_far_ahead() -> None:
    program = simple(updates=40, asks=True, apart=3, ends=False)
    assert judged_by(program.asker, run(program, None))[:3] == [1, 5, 9], "not before all have heard what was said last"
    program = replace(program, verdicts=Verdicts())
    seen = []
    for action in program.actions(Unit(0, 0)):
        if action.kind is Kind.HEED:
            break
        seen.append(action)
    assert max(a.index + 1 for a in seen if a.kind is Kind.UPDATE) == 1 + program.delay


def test_nobody_asks_near_the_end() -> None:
    program = simple(updates=12, ends=False, asks=True)
    judged = judged_by(program.asker, run(program, None))
    assert judged == list(range(1, 9))
    assert judged[-1] + program.notice < 12 <= judged[-1] + program.delay + program.notice


def test_a_group_that_comes_back_does_not_say_what_is_asked_where_it_begins() -> None:
    grid = Program(Grid(2, 2), stale([2, 0], 1), 20, NoLateral(), Watch(2, 3, 1))
    back = replace(grid, back={0: Back(6, 1)}, saves=Saves(since=6))
    for ends in (False, True):
        program = Stoppable.of(back, 2, none, ends=ends, asks=True, apart=1)
        assert program.asker == Unit(1, 1)
        done = run(program, None)
        heard = (a.index for a in done[Unit(0, 0)] if a.kind is Kind.HEED and a.needs[0].edge.name == ASKED)
        assert next(heard) == 6
        assert max(a.index for a in done[Unit(0, 1)] if a.kind is Kind.UPDATE) == 19
    assert Stoppable.of(replace(back, saves=Saves(since=9)), 2, none, asks=True).asker == Unit(0, 1)
