"""All agents in this process, in a deterministic order.

Does not know: other processes, what an action computes, what time it is: whoever dates or times actions is told of
each, and changes nothing.
"""

from collections.abc import Callable, Mapping

from stalegrid.agents import Agent
from stalegrid.engines.network import Network, describe, waits_of
from stalegrid.errors import EngineError
from stalegrid.programs import Action, Agenda, Unit


def simulate(
    program: Agenda, agents: Mapping[Unit, Agent], before: Callable[[Unit, Action], object] | None = None
) -> None:
    """Run a program to its end, one action of each ready agent in turn.

    Args:
        program: what is due.
        agents: every agent of the program.
        before: told of every action before it is executed, such as :meth:`stalegrid.timing.clock.Clock.date`.

    Raises:
        EngineError: the program deadlocks.
    """
    network = Network(program, agents)
    while not network.done:
        # Read once a turn: who becomes ready by what is sent in it comes in the next one.
        ready = network.ready()
        if not ready:
            raise EngineError(f"deadlock: {describe(waits_of(network.missing()))}")
        for unit in ready:
            if before is not None:
                before(unit, network.due(unit))
            for message in network.step(unit):
                network.deliver(message)
