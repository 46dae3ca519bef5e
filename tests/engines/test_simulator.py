from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.engines.simulator import simulate
from stalegrid.errors import EngineError
from stalegrid.programs.actions import Action
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.lateral import NoLateral
from stalegrid.programs.messages import Message
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, stale
from stalegrid.programs.watch import Watch


class Logger:
    """Write down who did what, and check that the right messages came."""

    def __init__(self, unit: Unit, log: list[tuple[Unit, str]]) -> None:
        self.unit = unit
        self.log = log

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        assert tuple(m.tag for m in inbox) == action.needs
        self.log.append((self.unit, str(action)))
        return [Message(tag, 0, ()) for tag in action.sends]


def run(program: Program) -> list[tuple[Unit, str]]:
    log: list[tuple[Unit, str]] = []
    simulate(program, {agent: Logger(agent, log) for agent in program.agents})
    return log


@settings(deadline=None)
@given(
    groups=st.integers(1, 3),
    staleness=st.lists(st.integers(0, 4), min_size=1, max_size=4).map(lambda m: sorted(m, reverse=True)),
    micro=st.integers(1, 3),
    updates=st.integers(1, 4),
    lateral=st.integers(0, 3),
    watch=st.booleans(),
)
def test_every_agent_runs_its_program_to_the_end(
    groups: int, staleness: list[int], micro: int, updates: int, lateral: int, watch: bool
) -> None:
    exchange = [
        NoLateral(),
        AllReduce(groups),
        Averaging(mixing_matrix("ring", groups), False, 1, 1, updates),
        Averaging(mixing_matrix("star", groups), True, 2, 0, updates),
    ][lateral]
    grid = Grid(groups, len(staleness))
    program = Program(grid, stale(staleness, micro), updates, exchange, Watch(chunks=1) if watch else None)
    log = run(program)
    for agent in program.agents:
        assert [done for unit, done in log if unit == agent] == [str(a) for a in program.actions(agent)]


def test_agents_take_turns_and_always_the_same() -> None:
    program = Program(Grid(1, 2), stale([1, 0]), 2)
    log = run(program)
    assert log == run(program)
    first, last = Unit(0, 0), Unit(0, 1)
    expected = [(first, "F0"), (first, "F1"), (last, "F0"), (last, "B0"), (first, "B0"), (last, "U0")]
    assert log[: len(expected)] == expected


def test_a_deadlock_is_an_error_that_says_who_waits_for_what() -> None:
    with pytest.raises(EngineError, match=r"deadlock: unit \(0,0\) waits for gradient of batch or update 0 from"):
        run(Program(Grid(1, 2), Schedule((1, 2)), 3))
