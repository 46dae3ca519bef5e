"""Notes when agents really execute their actions.

Does not know: what actions compute, who reads what is noted.
"""

import time
from collections.abc import Sequence

import torch

from stalegrid.agents import Agent, Around
from stalegrid.observe import Recorder
from stalegrid.programs import Action, Message, Unit


def _epoch() -> int:
    """Return what the counter lacks to be the time of day; of several looks the one that was interrupted least."""
    looks = [(time.perf_counter_ns(), time.time_ns(), time.perf_counter_ns()) for _ in range(16)]
    before, day, after = min(looks, key=lambda look: look[2] - look[0])
    return day - (before + after) // 2


# Read once: the time of day may be set back while a run goes on, the counter cannot.
_EPOCH = _epoch()


def now() -> int:
    """Return nanoseconds that never run backwards here and agree with other processes as far as hosts' clocks do."""
    return _EPOCH + time.perf_counter_ns()


class Recorded(Around):
    """An agent whose actions are noted.

    Args:
        unit: which.
        agent: that does the work.
        recorder: who takes the notes.
        device: whose work is waited for at the end of each action, so that its time is seen where it belongs.
    """

    def __init__(self, unit: Unit, agent: Agent, recorder: Recorder, device: torch.device) -> None:
        self._unit = unit
        super().__init__(agent)
        self._recorder = recorder
        self._device = device

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        start = now()
        made = self.agent.step(action, inbox)
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        self._recorder.executed(self._unit, action, start, now())
        return made


def recorded(agents: dict[Unit, Agent], recorder: Recorder, device: torch.device) -> dict[Unit, Agent]:
    """Note the actions of all agents."""
    return {unit: Recorded(unit, agent, recorder, device) for unit, agent in agents.items()}
