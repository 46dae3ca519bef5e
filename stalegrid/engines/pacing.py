"""Makes real devices slower: an agent whose every action takes as long as it would on another device.

Does not know: what actions compute, when they are due.
"""

import time
from collections.abc import Sequence

from stalegrid.agents import Agent, Around
from stalegrid.objects import State
from stalegrid.plans import Plan, ServedPlan
from stalegrid.programs import OBSERVER, Action, Message, Unit
from stalegrid.timing import NANOSECONDS, Pace


class Paced(Around):
    """An agent on a slower device: it sleeps after each action, before anything leaves.

    Args:
        agent: that does the work.
        pace: of the slower device.
        emulated: whether actions take what the pace says they usually do, and not what they really do.
    """

    def __init__(self, agent: Agent, pace: Pace, emulated: bool) -> None:
        super().__init__(agent)
        self._pace = pace
        self._emulated = emulated

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        start = time.perf_counter_ns()
        made = self.agent.step(action, inbox)
        taken = time.perf_counter_ns() - start
        wanted = self._pace.of(action.kind) if self._emulated else self._pace.stretched(taken)
        time.sleep(max(0, wanted - taken) / (1000 * NANOSECONDS))
        return made

    def state_dict(self) -> State:
        """Return the state of the agent within, and how much was drawn for its device."""
        return {**super().state_dict(), "drawn": self._pace.drawn}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`; a device that was not slower has drawn nothing."""
        super().load_state_dict(state)
        self._pace.skip(state.get("drawn", 0))


def paced(plan: Plan | ServedPlan, agents: dict[Unit, Agent], emulate: bool) -> dict[Unit, Agent]:
    """Slow the agents down as the plan's devices ask for.

    Args:
        plan: of the run.
        agents: of this process.
        emulate: whether actions take what the costs say.
    """
    disturbances, model = plan.devices.disturbances, plan.time_model

    def slower(unit: Unit, agent: Agent) -> Agent:
        if emulate:
            assert model is not None
            return Paced(agent, model.pace(unit), emulated=True)
        if disturbances.jitter or unit in disturbances.slow:
            return Paced(agent, Pace(unit, {}, disturbances), emulated=False)
        return agent

    return {unit: agent if unit == OBSERVER else slower(unit, agent) for unit, agent in agents.items()}
