import time
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest
import torch

from stalegrid.agents.build import build_agents
from stalegrid.engines.recording import Recorded, now, recorded
from stalegrid.engines.simulator import simulate
from stalegrid.observe.timeline import Timeline
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.messages import Message
from tests.cases import CPU, Recorder, compare, make_plan, make_settings, make_task, run_simulator

UNIT = Unit(0, 1)


class Sleeper:
    """An agent that sleeps for a while."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self.inboxes: list[Sequence[Message]] = []

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        self.inboxes.append(inbox)
        time.sleep(self._seconds)
        return [Message(tag, 5, ()) for tag in action.sends]


def test_now_never_runs_backwards_and_is_about_the_time_of_the_day() -> None:
    seen = [now() for _ in range(1000)]
    assert seen == sorted(seen)
    assert abs(now() - time.time_ns()) < 3600 * 10**9


def test_an_action_is_noted_from_its_start_to_its_end() -> None:
    timeline, agent = Timeline(), Sleeper(0.005)
    edge = Edge("gradient", UNIT, Unit(0, 0))
    action = Action(Kind.BACKWARD, 4, sends=(Tag(edge, 4),))
    inbox = [Message(Tag(edge, 1), 0, ())]
    before = now()
    sent = Recorded(UNIT, agent, timeline, CPU).step(action, inbox)
    after = now()
    (span,) = timeline.spans
    assert (span.unit, span.kind, span.index) == (UNIT, Kind.BACKWARD, 4)
    assert before <= span.start <= span.end - 5_000_000
    assert span.end <= after
    assert agent.inboxes == [inbox]
    assert [(message.tag, message.version) for message in sent] == [(Tag(edge, 4), 5)]
    assert not timeline.departures


def test_what_fails_is_not_noted() -> None:
    class Broken:
        def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
            raise ValueError("broken")

    timeline = Timeline()
    with pytest.raises(ValueError, match="broken"):
        Recorded(UNIT, Broken(), timeline, CPU).step(Action(Kind.FORWARD, 0), [])
    assert not timeline.spans


def test_the_work_of_a_gpu_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[Any] = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    device = torch.device("cuda", 1)
    Recorded(UNIT, Sleeper(0), Timeline(), device).step(Action(Kind.FORWARD, 0), [])
    assert waited == [device]
    Recorded(UNIT, Sleeper(0), Timeline(), CPU).step(Action(Kind.FORWARD, 0), [])
    assert waited == [device]


def test_a_recorded_run_computes_the_same_bits_and_notes_every_action_in_order() -> None:
    task, settings = make_task(), make_settings(2, 2)
    plan, timeline = make_plan(task, settings), Timeline()
    sink = Recorder(plan)
    agents = build_agents(task, plan, plan.program.agents, CPU, sink)
    simulate(plan.program, recorded(agents, timeline, CPU))
    compare(sink.outcome(), run_simulator(task, settings))
    for agent in plan.program.agents:
        spans = [s for s in timeline.spans if s.unit == agent]
        assert [(s.kind, s.index) for s in spans] == [(a.kind, a.index) for a in plan.program.actions(agent)]
        assert all(a.end <= b.start for a, b in pairwise(spans))
    assert any(s.unit == OBSERVER for s in timeline.spans)
