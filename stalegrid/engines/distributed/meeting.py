"""How the processes of a run find each other: who is there is told, and a wait for those who are not ends.

Does not know: who started them, what they do when they have met, who may be trusted.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, SimpleQueue
from threading import Event, Thread
from time import monotonic
from typing import TypeAlias, TypeVar
from uuid import uuid4

import torch.distributed as dist
from torch.distributed import PrefixStore, Store  # type: ignore[attr-defined]

from stalegrid.errors import DeadlineExceeded, EngineError, StalegridError

T = TypeVar("T")

START = 60.0
"""Seconds in which somebody new has to come, or as long as the deadline if that is more.

A process must load Python and torch before it can come, which a busy host or a slow disk may stretch far beyond what a
message takes.  So starting has a patience of its own, counted anew whenever somebody comes; the deadline counts as soon
as all are there.
"""

TOLD = 10.0
"""Seconds between two words on who is missing."""

_LOOK = 0.05  # seconds between two looks
_PARTING = 5.0  # seconds in which the others have read
_GIVEN_UP = "the wait was given up"  # heard by nobody
_LEAVE = 1.0  # seconds in which a wait that is given up ends, unless it hangs

_MEETING, _OPEN = "stalegrid/meeting", "open"

Reach = Callable[[], tuple[Store, int, int]]
"""Reaches the place where processes meet; returns it, this process's rank, and how many there are."""

Steps: TypeAlias = "SimpleQueue[str | Exception | None]"
"""Where it is told for whom is waited now, what went wrong, and in the end nothing."""


def patience_of(deadline: float) -> float:
    """Return the seconds in which somebody new has to come."""
    return max(deadline, START)


@dataclass(frozen=True)
class Met:
    """Where processes have met.

    Args:
        store: through which they can tell each other more.
        rank: of this process.
        size: how many there are.
        said: what each has said as it came, in the order of ranks.
    """

    store: Store
    rank: int
    size: int
    said: list[str]


Hear = Callable[[Met, Steps, Event], object]
"""Takes what all have said; is given where it tells for whom it waits, and what tells it that nobody wants it more."""


def meet(
    reach: Reach,
    patience: float,
    where: str,
    say: Callable[[], str] = str,
    hear: Hear | None = None,
) -> None:
    """Wait for all processes and make the default process group of them.

    Args:
        reach: the place where they meet.
        patience: seconds in which somebody new has to come.
        where: what is said of that place.
        say: returns what this process says as it comes, once the place is reached.
        hear: takes what all have said, before they are connected; may refuse it, and tell for whom it waits.

    Raises:
        DeadlineExceeded: somebody did not come.
        EngineError: they cannot be connected.
    """

    def work(steps: Steps, over: Event) -> None:
        met = _gather(reach, say, steps, over, listens=hear is not None)
        if hear is not None:
            try:
                hear(met, steps, over)
            except StalegridError:
                part(met, over)
                raise
        steps.put(f"the {met.size} processes cannot connect: process {met.rank} waits")
        connect(met.store, met.rank, met.size, patience)

    attended(work, patience, where)


def all_there(reach: Reach, patience: float, where: str, say: Callable[[], str]) -> Met:
    """Wait for all processes, which are not connected; see :func:`meet`."""
    return attended(lambda steps, over: _gather(reach, say, steps, over, listens=True), patience, where)


def attended(work: Callable[[Steps, Event], T], patience: float, where: str) -> T:
    """Do what may hang, as calls of torch do, in a thread, so that signals and the patience end it all the same.

    Args:
        work: what is done, given where it tells for whom it waits now, and what tells it that nobody wants it any more.
        patience: seconds without a new word of it.
        where: what is said of the place where it happens.

    Returns:
        What came of it.

    Raises:
        DeadlineExceeded: it told nothing new.
        EngineError: it went wrong.
    """
    steps: Steps = SimpleQueue()
    over, left = Event(), Event()
    done: list[T] = []

    def run() -> None:
        try:
            done.append(work(steps, over))
            steps.put(None)
        except Exception as problem:  # raised by who waits
            steps.put(problem)
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
    return done[0]


def _wait(steps: Steps, patience: float, where: str) -> None:
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
        if isinstance(step, StalegridError):
            raise step
        if isinstance(step, Exception):
            raise EngineError(f"this process cannot meet the others: {step}") from step
        waits, since = f"{step} at {where}", monotonic()


def _gather(reach: Reach, say: Callable[[], str], steps: Steps, over: Event, *, listens: bool) -> Met:
    """Wait until all are there, with a part of the store that is theirs alone; tell whenever somebody has come.

    A store may outlive an attempt and a run, and who meets there may be started a second time or for the first, on a
    host that has just come.  So the first process names a meeting, which the others take part in: none that they were
    in before, and none that was left before it was opened.
    """
    store, rank, size = reach()
    if rank == 0:
        store.set(_MEETING, uuid4().hex)
    found, told = _Place(store, rank, say()), list(range(size))
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
            raise EngineError(_GIVEN_UP)
    if rank == 0:
        found.open()
    return found.met(size, listens=listens)


def await_keys(store: Store, keys: Mapping[str, str], wait: str, steps: Steps, over: Event) -> None:
    """Wait until something is there under all keys; tell of those under which nothing is whenever it is another one.

    Args:
        store: where they are looked for.
        keys: with what each is called in what is told.
        wait: what is told of them.
        steps: where it is told.
        over: nobody wants it any more.

    Raises:
        EngineError: nobody does.
    """
    told: list[str] = []
    while left := [key for key in told or keys if not store.check([key])]:
        if left != told:
            steps.put(f"{_listed([keys[key] for key in left])} {wait}")
            told = left
        # Asked again and again: a wait of the store's would not end when this one is given up, nor tell who is missing.
        elif over.wait(_LOOK):
            raise EngineError(_GIVEN_UP)


def part(met: Met, over: Event) -> None:
    """Let all processes have read what they need: the store may be the first one's, which then ends last."""
    met.store.set(f"parted/{met.rank}", "")
    end = monotonic() + _PARTING
    while met.rank == 0 and monotonic() < end and not over.wait(_LOOK):
        if met.store.check([f"parted/{rank}" for rank in range(met.size)]):
            return


def _listed(names: list[str]) -> str:
    """Return names that all begin with the same word, which is said once."""
    word = names[0].partition(" ")[0]
    return f"{word} {', '.join(name.removeprefix(word).strip() for name in names)}"


class _Place:
    """Where a process meets the others, as it knows it.

    Args:
        store: that all reach.
        rank: of the process.
        said: what it says as it comes; nothing where nobody hears.
    """

    def __init__(self, store: Store, rank: int, said: str) -> None:
        self._store = store
        self._rank = rank
        self._said = said
        self._name = ""
        self.part: Store | None = None

    def look(self) -> None:
        """Take part in the meeting that is named, if it is a new one."""
        name = self._store.get(_MEETING).decode() if self._store.check([_MEETING]) else ""
        if name == self._name:
            return
        self._name, part = name, PrefixStore(f"stalegrid/{name}", self._store)
        if self._said:
            part.set(f"said/{self._rank}", self._said)
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

    def met(self, size: int, *, listens: bool) -> Met:
        """Return where so many have met, once all have come."""
        part = self.part
        assert part is not None
        said = [part.get(f"said/{rank}").decode(errors="replace") for rank in range(size)] if listens else []
        return Met(part, self._rank, size, said)


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
