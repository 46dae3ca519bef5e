"""Runs the agents of this process: steps them when their messages are there, sends what they make at once.

Does not know: what agents compute, how channels work inside.
"""

from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from queue import Empty
from time import monotonic

import torch

from stalegrid.agents import Agent
from stalegrid.engines.distributed.channels import Arrivals, Broken, Incoming, Link, Outgoing
from stalegrid.engines.distributed.world import World
from stalegrid.engines.network import Network, called, describe, stalled, waits_of
from stalegrid.errors import DeadlineExceeded, EngineError, PeerLost, StalegridError, Wait
from stalegrid.observe import Recorder
from stalegrid.programs import OBSERVER, Agenda, Edge, Layout, Message, Tag, Unit

_PARTING = 5.0  # seconds that a channel has for each frame of what is left, where a run ends with an error
_GRACE = 5.0  # seconds that an agent has to end whom others can do without
_LOOK = 0.1  # seconds between two looks at what is still to be sent
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
    senders = [Outgoing(links, arrivals, recorder) for links in _in_turn(program, outgoing)]
    ways = {edge: sender for sender in senders for link in sender.links for edge in link.edges}
    receivers = [Incoming(link, arrivals, recorder) for link in incoming]
    network = Network(program, agents)
    patience = min(deadline * program.silence(agents), _LONGEST)
    deadline *= program.silence(program.units)
    with _parting(senders):
        while not network.done:
            _check(network, senders, deadline)
            ready = network.ready()
            if not ready:
                _receive(network, arrivals, patience)
            for unit in ready:
                for message in network.step(unit):
                    _send(network, ways, message)
            while not arrivals.empty():
                _receive(network, arrivals, patience)
    _end(program, senders, receivers, deadline)
    while not arrivals.empty():
        left = arrivals.get()
        # Nothing is due here any more; only what somebody else waits for may not be lost.
        if isinstance(left, Broken) and left.tag is not None and not program.expendable(left.tag.edge.target):
            raise _failure(network, left)


def _end(program: Agenda, senders: Collection[Outgoing], receivers: Collection[Incoming], deadline: float) -> None:
    """Wait until all is sent, then until others have ended too, which may rightly take longer than the deadline."""
    for sender in senders:
        sender.close(over=True)
    for sender in senders:
        while not sender.joined(_LOOK) and not _is_needless(sender, receivers):
            stuck = sender.stuck(deadline)
            if stuck is not None and all(program.expendable(edge.target) for edge in stuck[1].edges):
                break
            if stuck is not None:
                raise _untaken(*stuck, deadline)
    over = monotonic() + deadline
    for receiver in receivers:
        expendable = all(program.expendable(edge.source) for edge in receiver.link.edges)
        receiver.joined(min(over - monotonic(), _GRACE if expendable else deadline))


def _is_needless(sender: Outgoing, receivers: Collection[Incoming]) -> bool:
    """Return whether the last frames are for a process that has ended: it does not wait for them, and may be gone."""
    stuck = sender.stuck(0)
    return (
        stuck is not None
        and stuck[0] is None
        and any(one.link.peer == stuck[1].peer and one.joined(0) for one in receivers)
    )


def _in_turn(program: Agenda, links: Collection[Link]) -> list[list[Link]]:
    """Part channels among threads: those of edges whose messages must leave one after another share one."""
    parts: list[tuple[set[object], list[Link]]] = []
    for link in links:
        ports = {program.port(edge) for edge in link.edges}
        shared = [part for part in parts if part[0] & ports]
        parts = [part for part in parts if part not in shared]
        parts.append((ports.union(*(p for p, _ in shared)), [*(one for _, many in shared for one in many), link]))
    return [many for _, many in parts]


@contextmanager
def _parting(senders: Collection[Outgoing]) -> Iterator[None]:
    """Where an error ends the work, let what others were to be told leave first, as reports before it."""
    try:
        yield
    except Exception:
        for sender in senders:
            sender.close(over=False)
        for sender in senders:
            # Whoever is there takes frames as they come, but a machine with too much to do lets each wait its turn.
            while not sender.joined(_LOOK) and sender.stuck(_PARTING) is None:
                pass
        raise


def _check(network: Network, senders: Collection[Outgoing], deadline: float) -> None:
    """Check that messages are taken: a hung process, which may be the observer's, would let them pile up here."""
    # Senders are asked between steps: their threads hang in a call of Gloo and cannot say so.
    for sender in senders:
        stuck = sender.stuck(deadline)
        if stuck is not None and not _lose(network, stuck[1].edges):
            raise _untaken(*stuck, deadline)


def _lose(network: Network, edges: Collection[Edge]) -> bool:
    """Go on without the process at the other end of a channel; return whether that is possible."""
    lost = [network.lose(edge) for edge in edges]  # all of them: a process takes all its units with it
    return all(lost)


def _untaken(tag: Tag | None, link: Link, deadline: float) -> DeadlineExceeded:
    edge = link.edges[0] if tag is None else tag.edge
    what = f"the last {edge.name} of {edge.source}" if tag is None else str(tag)
    taker = called(str(edge.target))
    wait = Wait(str(edge.source), f"{edge.name} to be taken", str(edge.target))
    return DeadlineExceeded(f"{taker} is silent: it has not taken {what} within {deadline:g} s", [wait])


def _send(network: Network, ways: Mapping[Edge, Outgoing], message: Message) -> None:
    sender = ways.get(message.tag.edge)
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
    if arrived is None:
        return
    if isinstance(arrived, Message):
        for tensor in arrived.tensors:
            if tensor.is_cuda:  # allocated on the receiving thread's stream, used on this one's
                tensor.record_stream(torch.cuda.current_stream())
        network.deliver(arrived)
    elif isinstance(arrived.reason, StalegridError) or not _lose(network, arrived.edges):
        _watch_on(network)
        raise arrived.reason if isinstance(arrived.reason, StalegridError) else _failure(network, arrived)


def _watch_on(network: Network) -> None:
    """Let the observer, if it lives here, deal with what came before: no result is lost that was told in time."""
    while OBSERVER in network.ready():
        network.step(OBSERVER)


def _failure(network: Network, broken: Broken) -> PeerLost:
    missing = network.missing()
    waits = waits_of(missing)
    awaited = (tag for tags in missing.values() for tag in tags if tag.edge in broken.edges)
    which = broken.tag or next(awaited, broken.edges[0])
    told = describe(waits) or "nobody here waits yet"
    return PeerLost(f"the channel of {which} broke: {told} ({broken.reason})", waits)
