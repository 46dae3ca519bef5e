"""Agents tell others what is wanted of a run, beside what they tell by themselves."""

from collections.abc import Sequence

import pytest
import torch

from stalegrid.engines.asking import Asking, Telling, asked
from stalegrid.engines.leaving import LOOK, MOST, Asks, Cadence
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.live import Live
from stalegrid.programs.messages import END, Message
from stalegrid.programs.saving import LEAVE, SAVE
from stalegrid.programs.serving import DOOR, Ordered
from stalegrid.programs.softsync import Rules
from stalegrid.programs.stopping import ASKED
from stalegrid.programs.watch import Watch
from tests.programs.test_stopping import simple


class Agent:
    """Sends what its actions say, at a version."""

    def __init__(self, version: int = 3) -> None:
        self.version = version
        self.steps: list[Kind] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self.steps.append(action.kind)
        made = (torch.tensor([1, 0]),) if action.kind is Kind.TAKE else ()
        return [Message(tag, self.version, made) for tag in action.sends]


class Wanted:
    """What is wanted, whenever somebody asks."""

    def __init__(self, code: int) -> None:
        self.is_wanted = code
        self.ready: list[bool] = []

    def code(self, *, ready: bool = True) -> int:
        self.ready.append(ready)
        return self.is_wanted


def take(*targets: Unit) -> Action:
    return Action(Kind.TAKE, 5, (), tuple(Tag(Edge("turn", DOOR, target), 5) for target in targets))


def test_the_first_server_tells_its_program_and_the_others_with_whose_gradient_it_was() -> None:
    program, wanted = Live(Rules(2, 1), 2, 9, Watch(), asks=True), Wanted(SAVE | LEAVE)
    door = Telling(Agent(), program, wanted)  # type: ignore[arg-type]
    (told,) = door.step(take(server(1)), [])
    assert told.tensors[0].tolist() == [1, SAVE | LEAVE]
    program.taken(4)
    assert program.left == 4
    assert wanted.ready == [True]
    other = Telling(Agent(), program, None)
    (told,) = other.step(take(server(1)), [])
    assert told.tensors[0].tolist() == [1, 0], "who does not decide asks nobody"


def test_answers_and_reports_say_what_was_asked_for_last() -> None:
    program = Live(Rules(2, 1), 1, 9, Watch(), asks=True)
    for version in (2, 3, 5):
        program.ask(SAVE)
        program.taken(version)
    server = Telling(Agent(4), program, None)
    edges = [Edge("weights", DOOR, learner(0)), Edge("report", DOOR, OBSERVER), Edge("snapshot", DOOR, OBSERVER)]
    for edge in edges:
        ordinary, last = (Tag(edge, index) for index in (7, END))
        first, goodbye = server.step(Action(Kind.ANSWER, 4, sends=(ordinary, last)), [])
        assert [tensor.tolist() for tensor in first.tensors] == [[3]], "version 5 comes later"
        assert goodbye.tensors == ()


def test_a_unit_says_what_is_wanted_and_when_it_says_so_next() -> None:
    program = simple(asks=True)
    inner, times = Agent(), iter((10.0, 10.0 + 2 * LOOK / 20))
    unit = Asking(inner, Wanted(SAVE), Cadence(lambda: next(times)))  # type: ignore[arg-type]
    said = []
    for version in (4, 6):
        made = unit.step(Action(Kind.JUDGE, version, sends=program._tags(ASKED, version)), [])
        assert [message.tag.edge.target for message in made] == program.agents
        said.append(made[0].tensors[0].tolist())
    assert said == [[SAVE, 1], [SAVE, 20]]
    assert inner.steps == []
    unit.step(Action(Kind.UPDATE, 6), [])
    assert inner.steps == [Kind.UPDATE]


@pytest.mark.parametrize(("seconds", "updates"), [(5.0, 1), (LOOK, 1), (LOOK / 10, 10), (LOOK / 1000, MOST), (0, MOST)])
def test_it_is_asked_as_often_as_updates_take(seconds: float, updates: int) -> None:
    times = iter((3.0, 3.0 + 4 * seconds))
    cadence = Cadence(lambda: next(times))
    assert cadence.after(8) == 1, "how long they take is not known yet"
    assert cadence.after(12) == pytest.approx(updates, abs=1)


def test_only_who_decides_or_tells_is_another_one() -> None:
    asks = Asks(None, lambda: False)
    grid, live = simple(asks=True), Live(Rules(2, 1), 2, 9, asks=True)
    inner = Agent()
    others = [unit for unit in grid.agents if asked(unit, inner, grid, asks) is not inner]  # type: ignore[arg-type]
    assert others == [grid.asker]
    told = [unit for unit in live.agents if asked(unit, inner, live, asks) is not inner]  # type: ignore[arg-type]
    assert told == live.shards
    for program in (simple(), Live(Rules(2, 1), 2, 9), Ordered(Rules(2, 1), 1, 9)):
        for unit in program.agents:
            assert asked(unit, inner, program, asks) is inner  # type: ignore[arg-type,comparison-overlap]
