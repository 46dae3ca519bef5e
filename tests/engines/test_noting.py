"""The record of deliveries is whole at any moment, and goes on where the run was saved."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from stalegrid.agents import Agent
from stalegrid.engines.noting import noted
from stalegrid.errors import DataError, OutputError
from stalegrid.objects import State
from stalegrid.programs import DELIVERIES, DOOR, Action, Edge, Kind, Message, Tag, learner


class Still:
    """A server that does nothing."""

    def __init__(self) -> None:
        self.state: State = {}

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        return []

    def state_dict(self) -> State:
        return {"of": "the server"}

    def load_state_dict(self, state: State) -> None:
        self.state = state


def take(agent: Agent, number: int, batch: int, version: int) -> None:
    tag = Tag(Edge("push", learner(number), DOOR), batch)
    agent.step(Action(Kind.TAKE, 0, (tag,)), [Message(tag, version, ())])
    agent.step(Action(Kind.UPDATE, 0), [])


def saved_at_two(folder: Path) -> State:
    """Write a record of three deliveries, and return the state after two of them."""
    with noted({DOOR: Still()}, folder) as agents:
        take(agents[DOOR], 0, 0, 0)
        agents[DOOR].step(Action(Kind.DROP, 2), [])
        state = agents[DOOR].state_dict()
        take(agents[DOOR], 1, 0, 0)
    return state


def test_what_was_noted_after_a_save_is_forgotten_where_the_run_goes_on(tmp_path: Path) -> None:
    state, server = saved_at_two(tmp_path), Still()
    before = (tmp_path / DELIVERIES).read_text().splitlines()
    with noted({DOOR: server}, tmp_path, again=True) as agents:
        agents[DOOR].load_state_dict(state)
        assert server.state == {"of": "the server"}
        assert (tmp_path / DELIVERIES).read_text().splitlines() == before[:2]
        take(agents[DOOR], 3, 1, 1)
        later = agents[DOOR].state_dict()
    last = '{"learner": 3, "batch": 1, "version": 1, "clock": 1}'
    assert (tmp_path / DELIVERIES).read_text().splitlines() == [*before[:2], last]
    with noted({DOOR: Still()}, tmp_path, again=True) as agents:
        agents[DOOR].load_state_dict(later)
        assert agents[DOOR].state_dict() == later


@pytest.mark.parametrize("record", ["", '{"learner": 0}\n' * 9])
def test_a_record_of_something_else_is_refused(record: str, tmp_path: Path) -> None:
    state = saved_at_two(tmp_path)
    (tmp_path / DELIVERIES).write_text(record)
    with (
        noted({DOOR: Still()}, tmp_path, again=True) as agents,
        pytest.raises(DataError, match=r"not the one that was written.*put the file back"),
    ):
        agents[DOOR].load_state_dict(state)
    assert (tmp_path / DELIVERIES).read_text() == record, "nothing of it is touched"


def test_a_record_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=DELIVERIES), noted({DOOR: Still()}, tmp_path, again=True):
        pass


def test_only_the_first_server_has_a_record(tmp_path: Path) -> None:
    agents: dict[object, Agent] = {learner(0): Still()}
    with noted(agents, tmp_path) as found:  # type: ignore[arg-type]
        assert found is agents
    assert list(tmp_path.iterdir()) == []
