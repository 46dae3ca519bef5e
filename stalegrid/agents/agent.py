"""Agents: what executes the actions of a program on tensors.

An agent takes one action and the messages it names, and returns the messages to send.

Does not know: engines.  It never sends, sleeps, reads a clock or knows a rank; :mod:`stalegrid.engines` does.
"""

from collections.abc import Sequence
from typing import Protocol

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
