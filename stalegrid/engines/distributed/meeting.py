"""How the processes of a run find each other: who is there is told, and a wait for those who are not ends.

Does not know: who started them, what they do when they have met, who may be trusted.
"""

import socket
import sys
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from uuid import uuid4

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from stalegrid.errors import ConfigError, DeadlineExceeded, EngineError

START = 60.0
"""Seconds in which somebody new has to come, or as long as the deadline if that is more.

A process must load Python and torch before it can come, which a busy host or a slow disk may stretch far beyond what a
message takes.  So starting has a patience of its own, counted anew whenever somebody comes; the deadline counts as soon
as all are there.
"""

TOLD = 10.0
"""Seconds between two words on who is missing."""

_LOOK = 0.05  # seconds between two looks
_LEAVE = 1.0  # seconds in which a wait that is given up ends, unless it hangs

_MEETING, _OPEN = "stalegrid/meeting", "open"

Reach = Callable[[], tuple[Store, int, int]]
"""Reaches the place where processes meet; returns it, this process's rank, and how many there are."""


def patience_of(deadline: float) -> float:
    """Return the seconds in which somebody new has to come."""
    return max(deadline, START)


def meet(reach: Reach, patience: float, where: str) -> None:
    """Wait for all processes and make the default process group of them.

    Whatever may hang does so in a thread, so that signals end this wait like any other.

    Args:
        reach: the place where they meet.
        patience: seconds in which somebody new has to come.
        where: what is said of that place.

    Raises:
        DeadlineExceeded: somebody did not come.
        EngineError: they cannot be connected.
    """
    steps: SimpleQueue[str | Exception | None] = SimpleQueue()
    over, left = Event(), Event()

    def run() -> None:
        try:
            _meet(reach, patience, steps, over)
        finally:
            left.set()

    try:
        # A signal may end this call when the thread runs, though nothing here knows yet that it does.
        Thread(target=run, name="meet", daemon=True).start()
        _wait(steps, patience, where)
    finally:
        # A thread in the midst of a call of torch would abort the interpreter at its end.
        over.set()
        left.wait(_LEAVE)


def _wait(steps: "SimpleQueue[str | Exception | None]", patience: float, where: str) -> None:
    waits, since, told = f"nothing answers at {where}", monotonic(), monotonic()
    while True:
        try:
            step = steps.get(timeout=max(0.0, min(since + patience, told + TOLD) - monotonic()))
        except Empty:
            if monotonic() >= since + patience:
                raise DeadlineExceeded(f"{waits}, for {patience:g} s") from None
            told = monotonic()
            print(f"stalegrid: {waits}, for {told - since:.0f} s", file=sys.stderr, flush=True)
            continue
        if step is None:
            return
        if isinstance(step, Exception):
            raise step
        waits, since = f"{step} at {where}", monotonic()


def _meet(reach: Reach, patience: float, steps: "SimpleQueue[str | Exception | None]", over: Event) -> None:
    try:
        store, rank, size = reach()
        part = _gather(store, rank, size, steps, over)
        if part is None:
            return
        connect(part, rank, size, patience)
        steps.put(None)
    except Exception as problem:  # raised by who waits
        own = isinstance(problem, EngineError | ConfigError)
        steps.put(problem if own else EngineError(f"this process cannot meet the others: {problem}"))


def _gather(
    store: Store, rank: int, size: int, steps: "SimpleQueue[str | Exception | None]", over: Event
) -> Store | None:
    """Wait until all are there, and return a part of the store that is theirs alone; tell whenever somebody has come.

    A store may outlive an attempt and a run, and who meets there may be started a second time or for the first, on a
    host that has just come.  So the first process names a meeting, which the others take part in: none that they were
    in before, and none that was left before it was opened.
    """
    if rank == 0:
        store.set(_MEETING, uuid4().hex)
    found, told = _Place(store, rank), list(range(size))
    while True:
        found.look()
        left = found.missing(size)
        if not left and (rank == 0 or found.opened()):
            break
        if left and left != told:
            steps.put(f"process {', '.join(map(str, left))} of {size} has not come: process {rank} waits")
            told = left
        # Asked again and again: a wait of the store's would not end when this one is given up, nor tell who has come.
        elif over.wait(_LOOK):
            return None
    if rank == 0:
        found.open()
    steps.put(f"the {size} processes cannot connect: process {rank} waits")
    return found.part


class _Place:
    """Where a process meets the others, as it knows it.

    Args:
        store: that all reach.
        rank: of the process.
    """

    def __init__(self, store: Store, rank: int) -> None:
        self._store = store
        self._rank = rank
        self._name = ""
        self.part: Store | None = None

    def look(self) -> None:
        """Take part in the meeting that is named, if it is a new one."""
        name = self._store.get(_MEETING).decode() if self._store.check([_MEETING]) else ""
        if name == self._name:
            return
        self._name, part = name, PrefixStore(f"stalegrid/{name}", self._store)
        self.part = part if part.add(f"came/{self._rank}", 1) == 1 else None

    def missing(self, size: int) -> list[int]:
        """Return who of so many has not come, as far as this process knows."""
        part = self.part
        return [r for r in range(size) if (r != self._rank if part is None else not part.check([f"came/{r}"]))]

    def opened(self) -> bool:
        """Return whether the first process has seen all come."""
        return self.part is not None and self.part.check([_OPEN])

    def open(self) -> None:
        """Say that all have come."""
        assert self.part is not None
        self.part.set(_OPEN, "")


def connect(store: Store, rank: int, size: int, patience: float) -> None:
    """Make the default process group of those who are there.

    Raises:
        EngineError: they cannot be connected.
    """
    store.set_timeout(timedelta(seconds=patience))
    try:
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=timedelta(seconds=patience))
    except RuntimeError as problem:
        raise EngineError(f"process {rank} cannot connect to the others: {problem}") from problem


def loopback() -> str:
    """Return the name of the interface that leads back to this host.

    Raises:
        ConfigError: there is none, or it is down.
    """
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            socket.create_connection(server.getsockname(), timeout=5.0).close()
    except OSError as problem:
        raise ConfigError(
            f"processes of one host meet on its loopback interface, which is down (127.0.0.1: {problem.strerror}); "
            "bring it up (ip link set lo up), or take engine simulator"
        ) from problem
    names = [name for _, name in socket.if_nameindex() if _is_loopback(name)]
    if not names:
        raise ConfigError("this host has no loopback interface (interfaces: none of that sort); take engine simulator")
    return names[0]


def _is_loopback(name: str) -> bool:
    flags = Path(f"/sys/class/net/{name}/flags")  # Linux says; elsewhere the name does
    return bool(int(flags.read_text(), 16) & 0x8) if flags.exists() else name.startswith("lo")
