"""Runs the agents of this process: steps them when their messages are there, sends what they make at once.

Does not know: what agents compute, how channels work inside.
"""

from collections.abc import Callable, Mapping
from queue import Empty

import torch

from stalegrid.agents import Agent
from stalegrid.engines.distributed.channels import AHEAD, Arrivals, Broken, Incoming, Link, Outgoing
from stalegrid.engines.distributed.world import World
from stalegrid.engines.network import Network, called, describe, stalled, waits_of
from stalegrid.errors import DeadlineExceeded, EngineError, PeerLost, StalegridError, TrainingError, Wait
from stalegrid.observe import Recorder
from stalegrid.programs import Agenda, Edge, Layout, Message, Unit

_PARTING = 1.0  # seconds that each channel has to send what is left, where a run ends with an error
_LONGEST = 1e7  # seconds that a queue can be waited for


def run(
    program: Agenda,
    agents: Mapping[Unit, Agent],
    world: World,
    layouts: Callable[[Edge], tuple[Layout, ...]],
    deadline: float,
    recorder: Recorder | None = None,
) -> None:
    """Run this process's part of a program to its end.

    Args:
        program: what is due.
        agents: of this process.
        world: where the others are.
        layouts: what a message of an edge may consist of.
        deadline: seconds without any message after which a wait is an error.
        recorder: who notes when messages leave and arrive; None for nobody.

    Raises:
        DeadlineExceeded: a message did not come, or could not be sent, in time.
        PeerLost: the process at the other end of an edge is gone.
    """
    try:
        _run(program, agents, world, layouts, deadline, recorder)
    except EngineError as problem:
        problem.args = (f"{problem}{world.elsewhere(wait.source for wait in problem.waits)}",)
        raise


def _run(
    program: Agenda,
    agents: Mapping[Unit, Agent],
    world: World,
    layouts: Callable[[Edge], tuple[Layout, ...]],
    deadline: float,
    recorder: Recorder | None,
) -> None:
    arrivals: Arrivals = Arrivals()
    incoming, outgoing = world.links(program, layouts)
    senders = _senders(program, outgoing, arrivals, recorder)
    for edge, link in incoming.items():
        Incoming(link, program.due(edge), arrivals, recorder, 1 if program.endless(edge) else AHEAD)
    network = Network(program, agents)
    patience = min(deadline * program.silence(agents), _LONGEST)
    deadline *= program.silence(program.units)
    while not network.done:
        _check(network, senders, deadline)
        ready = network.ready()
        if not ready:
            _receive(network, arrivals, patience)
        for unit in ready:
            for message in _stepped(network, unit, senders):
                _send(network, senders, message)
        while not arrivals.empty():
            _receive(network, arrivals, patience)
    for edge, sender in senders.items():
        if not sender.flush(deadline) and not program.expendable(edge.target):
            raise _untaken(f"the last {edge.name} of {edge.source}", edge, deadline)
    while not arrivals.empty():
        left = arrivals.get()
        # Nothing is due here any more; only what somebody else waits for may not be lost.
        if isinstance(left, Broken) and left.edge in outgoing and not program.expendable(left.edge.target):
            raise _failure(network, left)


def _stepped(network: Network, unit: Unit, senders: Mapping[Edge, Outgoing]) -> list[Message]:
    """Step a unit; where its numbers go wrong, let what others were to be told leave first, as reports before it."""
    try:
        return network.step(unit)
    except TrainingError:
        for sender in senders.values():
            sender.flush(_PARTING)
        raise


def _check(network: Network, senders: Mapping[Edge, Outgoing], deadline: float) -> None:
    """Check that messages are taken: a hung process, which may be the observer's, would let them pile up here."""
    # Senders are asked between steps: their threads hang in a call of Gloo and cannot say so.
    for sender in senders.values():
        tag = sender.stuck(deadline)
        if tag is not None and not network.lose(tag.edge):
            raise _untaken(str(tag), tag.edge, deadline)


def _untaken(what: str, edge: Edge, deadline: float) -> DeadlineExceeded:
    taker = called(str(edge.target))
    wait = Wait(str(edge.source), f"{edge.name} to be taken", str(edge.target))
    return DeadlineExceeded(f"{taker} is silent: it has not taken {what} within {deadline:g} s", [wait])


def _senders(
    program: Agenda, outgoing: Mapping[Edge, Link], arrivals: Arrivals, recorder: Recorder | None
) -> dict[Edge, Outgoing]:
    """Return the sender of every edge; those of one port share it."""
    ports: dict[object, dict[Edge, Link]] = {}
    for edge, link in outgoing.items():
        ports.setdefault(program.port(edge), {})[edge] = link
    return {
        edge: sender for links in ports.values() for sender in [Outgoing(links, arrivals, recorder)] for edge in links
    }


def _send(network: Network, senders: Mapping[Edge, Outgoing], message: Message) -> None:
    sender = senders.get(message.tag.edge)
    if sender is None:
        network.deliver(message)
    else:
        sender.send(message)


def _receive(network: Network, arrivals: Arrivals, patience: float) -> None:
    try:
        arrived = arrivals.get(timeout=patience)
    except Empty:
        if network.late():
            return
        waits = waits_of(network.missing())
        raise DeadlineExceeded(
            f"{stalled(waits)}; nothing came within {patience:g} s; if that is how slow a step is, raise the deadline",
            waits,
        ) from None
    if isinstance(arrived, Message):
        for tensor in arrived.tensors:
            if tensor.is_cuda:  # allocated on the receiving thread's stream, used on this one's
                tensor.record_stream(torch.cuda.current_stream())
        network.deliver(arrived)
    elif isinstance(arrived.reason, StalegridError):
        raise arrived.reason
    elif not network.lose(arrived.edge):
        raise _failure(network, arrived)


def _failure(network: Network, broken: Broken) -> PeerLost:
    waits = waits_of(network.missing())
    which = broken.edge if broken.tag is None else broken.tag
    told = describe(waits) or "nobody here waits yet"
    return PeerLost(f"the channel of {which} broke: {told} ({broken.reason})", waits)
