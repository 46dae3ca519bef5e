"""All agents in this process, in a deterministic order.

Does not know: time, other processes, what an action computes.
"""

from collections.abc import Mapping

from stalegrid.agents import Agent
from stalegrid.engines.network import Network, describe
from stalegrid.errors import EngineError
from stalegrid.grid import Unit
from stalegrid.program import Program


def simulate(program: Program, agents: Mapping[Unit, Agent]) -> None:
    """Run a program to its end, one action of each ready agent in turn.

    Args:
        program: what is due.
        agents: every agent of the program.

    Raises:
        EngineError: the program deadlocks.
    """
    network = Network(program, agents)
    while not network.done:
        ready = network.ready()
        if not ready:
            raise EngineError(f"deadlock: {describe(network.missing())}")
        for unit in ready:
            for message in network.step(unit):
                network.deliver(message)
