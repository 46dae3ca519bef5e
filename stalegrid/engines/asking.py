"""Agents that tell others what is wanted of a run, beside what they tell by themselves.

Does not know: who wants it, what agents compute, what comes of it.
"""

from collections.abc import Sequence

import torch

from stalegrid.agents import Agent, Around
from stalegrid.engines.leaving import Asks, Cadence
from stalegrid.programs import DOOR, END, Action, Agenda, Kind, Live, Message, Stoppable, Unit


class Telling(Around):
    """A server that tells others, and its program, what is wanted.

    Args:
        agent: that does the work.
        program: of the run.
        asks: what is wanted; None for a server that does not decide.
    """

    def __init__(self, agent: Agent, program: Live, asks: Asks | None) -> None:
        super().__init__(agent)
        self._program = program
        self._asks = asks

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        made = self.agent.step(action, inbox)
        if action.kind is Kind.TAKE and self._asks is not None:
            code = self._asks.code(ready=self._program.settled)
            self._program.ask(code)
            made = [Message(m.tag, m.version, (m.tensors[0] | torch.tensor([0, code]),)) for m in made]
        return [self._saying(message) for message in made]

    def _saying(self, message: Message) -> Message:
        if message.tag.index == END or not self._program.says_asked(message.tag.edge):
            return message
        last = torch.tensor([self._program.asked_last(message.version)])
        return Message(message.tag, message.version, (*message.tensors, last))


class Asking(Around):
    """A unit that says what is wanted.

    Args:
        agent: that does the work.
        asks: what is wanted.
        cadence: how often.
    """

    def __init__(self, agent: Agent, asks: Asks, cadence: Cadence) -> None:
        super().__init__(agent)
        self._asks = asks
        self._cadence = cadence

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is not Kind.JUDGE:
            return self.agent.step(action, inbox)
        said = torch.tensor([self._asks.code(), self._cadence.after(action.index)], dtype=torch.uint8)
        return [Message(tag, action.index, (said,)) for tag in action.sends]


def asked(unit: Unit, agent: Agent, program: Agenda, asks: Asks) -> Agent:
    """Return an agent that tells others what is wanted, where its program leaves that to it.

    Args:
        unit: which.
        agent: that does the work.
        program: of the run.
        asks: what is wanted.
    """
    if isinstance(program, Live) and program.askable and unit in program.shards:
        return Telling(agent, program, asks if unit == DOOR else None)
    if isinstance(program, Stoppable) and program.askable and unit == program.asker:
        return Asking(agent, asks, Cadence())
    return agent
