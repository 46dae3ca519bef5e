"""Agents: what executes the actions of a program on tensors.

An agent takes one action and the messages it names, and returns the messages to send.

Does not know: engines.  It never sends, sleeps, reads a clock or knows a rank; :mod:`stalegrid.engines` does.
"""

from collections.abc import Sequence
from typing import Protocol

from stalegrid.objects import State
from stalegrid.programs import Action, Message


class Agent(Protocol):
    """Executes actions, in the order of its program."""

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action.

        Args:
            action: the next one of the agent's program.
            inbox: one message for each of ``action.needs``, in that order.

        Returns:
            One message for each of ``action.sends``, in that order.
        """

    def remember(self) -> None:
        """Look at the objects that it has, as they begin; due before any action where a state is to be asked for."""

    def state_dict(self) -> State:
        """Return all that an agent like this one needs to go on from here, as a tree of plain values and tensors."""

    def load_state_dict(self, state: State) -> None:
        """Be as the agent was whose state it is."""


class Around:
    """An agent around another one, whose state is its own.

    Args:
        agent: that does the work.
    """

    def __init__(self, agent: Agent) -> None:
        self.agent = agent

    def remember(self) -> None:
        """Let the agent within look at its objects."""
        self.agent.remember()

    def state_dict(self) -> State:
        """Return the state of the agent within."""
        return self.agent.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Give the agent within a state."""
        self.agent.load_state_dict(state)
