"""Agents: what executes the actions of a program on tensors.

An agent takes one action and the messages it names, and returns the messages to send.

Does not know: engines.  It never sends, sleeps, reads a clock or knows a rank; :mod:`stalegrid.engines` does.
"""

from stalegrid.agents.agent import Agent, Around
from stalegrid.agents.beginning import Beginning
from stalegrid.agents.build import build_agents
from stalegrid.agents.looks import Diagnosing, Look
from stalegrid.agents.pipeline import without_batches
from stalegrid.agents.replicas import counted, mean

__all__ = [
    "Agent",
    "Around",
    "Beginning",
    "Diagnosing",
    "Look",
    "build_agents",
    "counted",
    "mean",
    "without_batches",
]
