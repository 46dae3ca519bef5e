"""Which processes are on one host, and whether every host reaches every other.

Does not know: what processes then tell each other, how fast the ways are.
"""

import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Event
from typing import Self

from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.meeting import Met, Steps, await_keys
from stalegrid.errors import EngineError, ProtocolError

REACH = 5.0
"""Seconds in which a host can be reached, or cannot."""


@dataclass(frozen=True)
class Hosts:
    """The hosts of a run, in the order of their first processes.

    Args:
        firsts: ranks of those.
        sizes: how many processes each has.
        names: of each; with the address where several have the same.
        places: of every process, its host's in that order.
    """

    firsts: list[int]
    sizes: list[int]
    names: list[str]
    places: list[int]

    @classmethod
    def of(cls, greetings: Sequence[Greeting]) -> Self:
        """Return those of processes that say what they are."""
        places = [(one.host, one.address) for one in greetings]
        firsts = [places.index(place) for place in dict.fromkeys(places)]
        hosts = [greetings[rank] for rank in firsts]
        named = [one.host for one in hosts]
        names = [one.host if named.count(one.host) == 1 else f"{one.host} {one.address}" for one in hosts]
        order = [places[rank] for rank in firsts]
        return cls(firsts, [places.count(place) for place in order], names, [order.index(place) for place in places])


def check_ways(met: Met, greetings: Sequence[Greeting], steps: Steps, over: Event) -> None:
    """Let every host be reached from every other once; Gloo would try for long, and not say which way there is none.

    Args:
        met: where processes have met.
        greetings: what each has said.
        steps: where it is told for whom is waited.
        over: nobody wants it any more.

    Raises:
        EngineError: in every process, if there is no way between two hosts.
    """
    hosts = Hosts.of(greetings)
    if len(hosts.firsts) == 1:
        return
    if met.rank in hosts.firsts:
        steps.put(f"process {met.rank} looks for ways to {len(hosts.firsts) - 1} hosts, to be told")
        met.store.set(f"ways/{met.rank}", json.dumps(_missing(met.rank, greetings, hosts)))
    keys = {f"ways/{rank}": f"process {rank}" for rank in hosts.firsts}
    await_keys(met.store, keys, f"has not reached all hosts: process {met.rank} waits", steps, over)
    lost = [way for key in keys for way in _read(met.store.get(key))]
    if lost:
        raise EngineError(
            f"hosts do not reach each other: {'; '.join(lost)}; let firewalls pass TCP between them, or name another "
            "interface in GLOO_SOCKET_IFNAME; stalegrid doctor, started alike, measures all ways"
        )


def _missing(me: int, greetings: Sequence[Greeting], hosts: Hosts) -> list[str]:
    """Return to which hosts there is no way from this one, and why."""
    own, found = hosts.names[hosts.firsts.index(me)], []
    for rank, name in zip(hosts.firsts, hosts.names, strict=True):
        other = greetings[rank]
        try:
            if rank != me:
                socket.create_connection((other.address, int(other.port)), timeout=REACH).close()
        except OSError as problem:
            found.append(f"{own} -> {name} at {other.address} ({problem.strerror or problem})")
    return found


def _read(text: bytes) -> list[str]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list):
        raise ProtocolError("a process has not told which hosts it reaches")
    return list(map(str, found))
