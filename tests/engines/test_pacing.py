import time
from collections.abc import Sequence
from typing import Any

import pytest

from stalegrid.engines import pacing
from stalegrid.engines.pacing import Paced, paced
from stalegrid.plans.plan import Plan
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.messages import Message
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.disturbances import Disturbances, Jitter
from stalegrid.timing.pace import Pace, durations
from tests.cases import make_plan, make_settings, make_task

UNIT = Unit(0, 0)
MS = 1_000_000
COST = Cost(forward=4, backward=8, update=1)


class FakeTime:
    """A clock on which only work and sleep take time."""

    def __init__(self) -> None:
        self.now = 123_456
        self.slept: list[float] = []

    def perf_counter_ns(self) -> int:
        return self.now

    def sleep(self, seconds: float) -> None:
        assert seconds >= 0
        self.slept.append(seconds)
        self.now += round(seconds * 1e9)


class Worker:
    """An agent whose actions take so many milliseconds."""

    def __init__(self, clock: FakeTime, taken: float) -> None:
        self._clock, self._taken = clock, taken
        self.done: list[tuple[Action, Sequence[Message]]] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self._clock.now += round(self._taken * MS)
        self.done.append((action, inbox))
        return [Message(tag, 7, ()) for tag in action.sends]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    made = FakeTime()
    monkeypatch.setattr(pacing, "time", made)
    return made


def step(agent: Paced, clock: FakeTime, kind: Kind) -> float:
    """Return the milliseconds that an action takes."""
    before = clock.now
    agent.step(Action(kind, 0), [])
    return (clock.now - before) / MS


def test_an_emulated_action_takes_what_it_costs_however_quick_it_is(clock: FakeTime) -> None:
    agent = Paced(Worker(clock, 1.5), Pace(UNIT, durations(COST, 1), Disturbances()), emulated=True)
    assert [step(agent, clock, kind) for kind in (Kind.FORWARD, Kind.BACKWARD)] == [4, 8]
    assert clock.slept == pytest.approx([0.0025, 0.0065])


def test_an_emulated_action_that_takes_longer_than_it_costs_is_not_held_up(clock: FakeTime) -> None:
    agent = Paced(Worker(clock, 5), Pace(UNIT, durations(COST, 1), Disturbances()), emulated=True)
    kinds = (Kind.FORWARD, Kind.UPDATE, Kind.SHARE)
    assert [step(agent, clock, kind) for kind in kinds] == [5, 5, 5]
    assert sum(clock.slept) == 0


def test_an_emulated_unit_is_disturbed_as_in_virtual_time(clock: FakeTime) -> None:
    disturbances = Disturbances(jitter=Jitter(0.4, 0.3, 10), slow={UNIT: 2.0}, seed=5)
    agent = Paced(Worker(clock, 0), Pace(UNIT, durations(COST, 1), disturbances), emulated=True)
    virtual = Pace(UNIT, durations(COST, 1), disturbances)
    kinds = [Kind.FORWARD, Kind.SHARE, Kind.BACKWARD, Kind.UPDATE] * 20
    assert [step(agent, clock, kind) for kind in kinds] == [virtual.of(kind) / MS for kind in kinds]


def test_a_slow_unit_takes_so_many_times_what_it_really_takes(clock: FakeTime) -> None:
    agent = Paced(Worker(clock, 3), Pace(UNIT, {}, Disturbances(slow={UNIT: 2.5})), emulated=False)
    assert [step(agent, clock, kind) for kind in (Kind.FORWARD, Kind.REPORT)] == [7.5, 7.5]


def test_no_unit_is_sped_up(clock: FakeTime) -> None:
    agent = Paced(Worker(clock, 3), Pace(UNIT, {}, Disturbances(slow={UNIT: 0.5})), emulated=False)
    assert step(agent, clock, Kind.FORWARD) == 3


def test_a_paced_agent_does_its_work_and_sends_it_afterwards(clock: FakeTime) -> None:
    worker = Worker(clock, 1)
    agent = Paced(worker, Pace(UNIT, durations(COST, 1), Disturbances()), emulated=True)
    edge = Edge("activation", UNIT, Unit(0, 1))
    action, inbox = Action(Kind.FORWARD, 3, sends=(Tag(edge, 3),)), [Message(Tag(edge, 9), 1, ())]
    before = clock.now
    sent = agent.step(action, inbox)
    assert worker.done == [(action, inbox)]
    assert [(message.tag, message.version) for message in sent] == [(Tag(edge, 3), 7)]
    assert clock.now - before == 4 * MS


def test_what_fails_fails() -> None:
    class Broken:
        def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
            raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        Paced(Broken(), Pace(UNIT, {}, Disturbances()), emulated=False).step(Action(Kind.FORWARD, 0), [])


def test_sleep_is_real() -> None:
    class Quick:
        def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
            return []

    agent = Paced(Quick(), Pace(UNIT, durations(COST, 1), Disturbances()), emulated=True)
    start = time.perf_counter()
    for _ in range(5):
        agent.step(Action(Kind.BACKWARD, 0), [])
    assert time.perf_counter() - start >= 5 * 0.008


def plan(**asked: Any) -> Plan:
    costs = CostTable(4, (COST, Cost(forward=6, backward=2)))
    return make_plan(make_task(), make_settings(2, 2, engine="processes", **asked), costs)


def taken(agents: dict[Unit, Any], clock: FakeTime, agent: Unit) -> float:
    before = clock.now
    agents[agent].step(Action(Kind.FORWARD, 0), [])
    return (clock.now - before) / MS


def test_agents_that_nothing_slows_down_are_left_as_they_are(clock: FakeTime) -> None:
    for asked in ({}, {"slow": "1,1=2.0"}):
        made = plan(**asked)
        agents: dict[Unit, Any] = {unit: Worker(clock, 1) for unit in made.program.agents}
        found = paced(made, agents, emulate=False)
        assert list(found) == list(agents)
        changed = {unit for unit in agents if found[unit] is not agents[unit]}
        assert changed == ({Unit(1, 1)} if asked else set())
        assert taken(found, clock, Unit(1, 1)) == (2 if asked else 1)


def test_jitter_reaches_every_unit_but_not_the_observer(clock: FakeTime) -> None:
    made = plan(jitter=0.5)
    agents: dict[Unit, Any] = {unit: Worker(clock, 1) for unit in made.program.agents}
    found = paced(made, agents, emulate=False)
    assert {unit for unit in agents if found[unit] is agents[unit]} == {OBSERVER}


def test_emulation_gives_each_unit_the_costs_of_its_stage_and_leaves_the_observer(clock: FakeTime) -> None:
    made = plan(emulate=True, slow="0,1=3.0")
    agents: dict[Unit, Any] = {unit: Worker(clock, 1) for unit in made.program.agents}
    found = paced(made, agents, emulate=True)
    assert found[OBSERVER] is agents[OBSERVER]
    times = {unit: taken(found, clock, unit) for unit in made.grid}
    assert times == {Unit(0, 0): 4, Unit(0, 1): 18, Unit(1, 0): 4, Unit(1, 1): 6}
