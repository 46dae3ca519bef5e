"""Lets the hosts of a run tell each other what they are, and measure the ways between them.

Does not know: what they tell, what would be wrong with it.

All of it goes through the store through which processes meet, so that it works where they cannot be connected.
"""

import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from threading import Event

from stalegrid.engines.distributed import torchrun
from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.hosts import REACH, Hosts
from stalegrid.engines.distributed.interfaces import loopback, named
from stalegrid.engines.distributed.links import Link, measure
from stalegrid.engines.distributed.meeting import Met, Steps, attended, await_keys, part
from stalegrid.engines.distributed.peers import Peers
from stalegrid.errors import ProtocolError
from stalegrid.observe import Record


@dataclass(frozen=True)
class Surveyed:
    """A host.

    Args:
        name: its own, with the address where several have the same.
        told: what it has told of itself.
        processes: how many of the run it has.
    """

    name: str
    told: Record
    processes: int

    def of(self, part: str) -> "Surveyed":
        """Return the same with a part of what the host has told."""
        return replace(self, told=self.told[part])


@dataclass(frozen=True)
class Survey:
    """What hosts are, and what lies between them.

    Args:
        hosts: in the order of their first processes.
        links: from one to another, by their places in that order; a text where there is no way, which says why.
        places: of every process, its host's in that order.
    """

    hosts: list[Surveyed]
    links: dict[tuple[int, int], Link | str]
    places: list[int]


def survey(deadline: float, look: Callable[[Greeting, bytes], Record]) -> tuple[int, Survey]:
    """Survey all hosts together with the other processes that a launcher has started.

    Args:
        deadline: seconds in which whoever is waited for has to give a sign.
        look: returns what this host tells of itself, given what this process is and a number that is drawn once for
            all; called in one process a host.

    Returns:
        Rank of this process, and the same of all hosts in every process.

    Raises:
        ConfigError: what the environment says cannot be.
        DeadlineExceeded: a process did not come, or is silent.
        EngineError: they cannot meet.
    """
    with torchrun.gathered(deadline) as met:
        greetings = Greeting.all(met.said)
        drawn = "".join(one.drawn for one in greetings).encode()
        return met.rank, attended(
            lambda steps, over: _Surveying(met, greetings, deadline, steps, over).all(lambda own: look(own, drawn)),
            deadline,
            "the store where they meet",
        )


@contextmanager
def joined(deadline: float) -> Iterator[tuple[Peers, Survey]]:
    """Join the other processes, and survey their hosts, which tell nothing of themselves, on the way.

    Args:
        deadline: seconds that a process may give no sign of life.

    Raises:
        StalegridError: as :func:`stalegrid.engines.distributed.torchrun.joined`.
    """
    found: list[Survey] = []

    def look(met: Met, greetings: list[Greeting], steps: Steps, over: Event) -> None:
        found.append(_Surveying(met, greetings, deadline, steps, over).all(lambda own: {}))

    with torchrun.joined(deadline, look) as peers:
        yield peers, found[0]


def survey_alone(look: Callable[[Greeting, bytes], Record]) -> Survey:
    """Return the same of this host alone, whose processes are not started yet.

    Args:
        look: returns what it tells of itself.

    Raises:
        ConfigError: it has no loopback interface that is up.
    """
    greeting = Greeting.here(named(loopback()))
    return Survey([Surveyed(greeting.host, look(greeting, b""), 1)], {}, [0])


class _Surveying:
    """A survey under way, in one process."""

    def __init__(self, met: Met, greetings: list[Greeting], deadline: float, steps: Steps, over: Event) -> None:
        self._met, self._greetings, self._deadline, self._steps, self._over = met, greetings, deadline, steps, over
        self._hosts = Hosts.of(greetings)
        self._reach = min(REACH, deadline / 2)

    def all(self, look: Callable[[Greeting], Record]) -> Survey:
        """Return what all hosts told and measured."""
        me, own = self._met.rank, self._greetings[self._met.rank]
        self._steps.put(f"process {me} looks at its own host, to be told")
        if me in self._hosts.firsts:
            self._tell("told", look(own))
            self._measure(self._hosts.firsts.index(me))
        told = [self._read("told", rank) for rank in self._heard("told", self._hosts.firsts, "has not told what it is")]
        found = Survey(
            [Surveyed(*of) for of in zip(self._hosts.names, told, self._hosts.sizes, strict=True)],
            {
                (a, (a + turn) % len(self._hosts.firsts)): _link(self._read(f"link {turn}", rank))
                for turn in range(1, len(self._hosts.firsts))
                for a, rank in enumerate(self._heard(f"link {turn}", self._hosts.firsts, "has not measured a link"))
            },
            self._hosts.places,
        )
        part(self._met, self._over)
        return found

    def _measure(self, me: int) -> None:
        """Measure the ways from this host: in each turn every host sends to one and is sent to by one."""
        size = len(self._hosts.firsts)
        self._heard("told", self._hosts.firsts, "has not told what it is")
        for turn in range(1, size):
            other = (me + turn) % size
            greeting = self._greetings[self._hosts.firsts[other]]
            try:
                link = asdict(measure(greeting.address, int(greeting.port), greeting.drawn, self._reach))
            except OSError as problem:
                link = {"problem": problem.strerror or str(problem)}
            self._tell(f"link {turn}", link)
            self._heard(f"link {turn}", self._hosts.firsts, "has not measured a link")

    def _tell(self, what: str, value: Record) -> None:
        self._met.store.set(f"{what}/{self._met.rank}", json.dumps(value))

    def _heard(self, what: str, ranks: Iterable[int], wait: str) -> list[int]:
        """Return ranks once all of them have told something."""
        asked = list(ranks)
        keys = {f"{what}/{rank}": f"process {rank}" for rank in asked}
        await_keys(self._met.store, keys, f"{wait}: process {self._met.rank} waits", self._steps, self._over)
        return asked

    def _read(self, what: str, rank: int) -> Record:
        try:
            found = json.loads(self._met.store.get(f"{what}/{rank}"))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise ProtocolError(f"process {rank} has not told what was due ({what})")
        return found


def _link(told: Record) -> Link | str:
    try:
        return str(told["problem"]) if "problem" in told else Link(**{name: float(told[name]) for name in told})
    except (TypeError, ValueError) as problem:
        raise ProtocolError(f"a process has told a link that is none ({told})") from problem
