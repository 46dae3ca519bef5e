"""Meetings in pairs whenever the other one answers: however messages are late, all runs end and can be repeated."""

import pickle
import random
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from stalegrid.engines.network import Network
from stalegrid.programs.actions import Action, Edge, Kind
from stalegrid.programs.encounters import Encountering, Encounters
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.meetings import InStep, Recorded
from stalegrid.programs.messages import END, Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.record import line_of, read_order, record_of
from stalegrid.programs.schedules import stale
from tests.programs.test_meetings import askers


class Silent:
    """An agent that sends messages without content, and keeps the lines of its record."""

    def __init__(self) -> None:
        self.done: list[Action] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self.done.append(action)
        return [Message(tag, 0, ()) for tag in action.sends]


def blank(groups: int, stages: int, period: int, updates: int = 9) -> Program:
    return Program(
        Grid(groups, stages),
        stale([stages - 1 - k for k in range(stages)], 1),
        updates,
        InStep(askers(groups, period, updates)),
    )


def run(program: Program, seed: int) -> dict[Unit, Silent]:
    """Let one unit after the other act, drawn, and messages be late as drawn."""
    draw, agents = random.Random(seed), {unit: Silent() for unit in program.units}
    slow = draw.choice(program.units)
    network = Network(program, agents)  # type: ignore[arg-type]
    late: defaultdict[Edge, deque[Message]] = defaultdict(deque)
    while not network.done:
        ready = [u for u in network.ready() if u != slow or draw.random() < 0.1]
        edges = [edge for edge, messages in late.items() if messages]
        if edges and (draw.random() < 0.5 or not ready):
            network.deliver(late[draw.choice(edges)].popleft())
        elif ready:
            for message in network.step(draw.choice(ready)):
                late[message.tag.edge].append(message)
    return agents


def exchanged(agent: Silent) -> list[Action]:
    return [action for action in agent.done if action.kind in (Kind.SHARE, Kind.MIX)]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("groups", "stages", "period"), [(2, 1, 1), (3, 2, 1), (4, 1, 2), (3, 3, 3)])
def test_all_come_to_an_end_and_their_record_repeats_it(
    groups: int, stages: int, period: int, seed: int, tmp_path: Path
) -> None:
    program, asking = blank(groups, stages, period), askers(groups, period)
    agents = run(Encountering.of(program, asking), seed)
    for unit, agent in agents.items():
        assert sum(action.kind is Kind.UPDATE for action in agent.done) == 9, unit
        lines = [line for line in map(line_of, agent.done) if line is not None]
        record_of(tmp_path, unit).write_text("".join(f"{line}\n" for line in lines))
    goodbyes = [tag for agent in agents.values() for a in agent.done for tag in a.sends if tag.index == END]
    assert len(goodbyes) == stages * groups * (groups - 1)
    assert all(any(a.kind is Kind.SHARE for a in agent.done) for agent in agents.values())
    again = run(replace(program, lateral=Recorded(asking, read_order(tmp_path, program.units))), seed + 1)
    assert {u: exchanged(agent) for u, agent in again.items()} == {u: exchanged(agent) for u, agent in agents.items()}


def test_orders_differ_by_who_is_late() -> None:
    orders = {str(exchanged(run(Encountering.of(blank(3, 1, 1), askers()), seed)[Unit(0, 0)])) for seed in range(10)}
    assert len(orders) > 5


def test_another_process_has_heard_nothing_yet() -> None:
    heard = Encounters(askers())
    heard.heard(Edge("question", Unit(1, 0), Unit(0, 0)), 0)
    (first, *_) = heard.after_update(Unit(0, 0), 0)
    assert first.kind is Kind.MIX
    heard.heard(Edge("question", Unit(1, 0), Unit(0, 0)), 1)
    (first, *_) = pickle.loads(pickle.dumps(heard)).after_update(Unit(0, 0), 0)
    assert first.kind is Kind.SHARE


def test_one_that_is_done_may_hear_nothing_for_as_long_as_all_are_asked_in_turn() -> None:
    program = Encountering.of(blank(4, 1, 2), askers(4, 2))
    assert program.silence(program.units) == 1 + 2 * 3 * 3
