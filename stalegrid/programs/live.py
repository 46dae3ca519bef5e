"""Servers and learners whose order of deliveries the network makes: whoever is ready comes next.

Does not know: tensors but for what it is told by them, channels, what an action computes.

Where what is due depends on what arrives, a program yields the messages that may settle it; see
:class:`stalegrid.programs.agenda.Agenda`.  Nobody knows beforehand how many messages an edge carries, so the last one
says that it is the last.

Such a run may be asked to be saved, or to leave, at a version that was not planned.  The first server decides that with
a gradient that it takes, for the version that this is to make, and tells the others with whose gradient it was.  As
servers save a version before they answer with it, an answer has only to say which version was asked for last, and a
learner saves itself as ever: before its first forward of that version or a later one.  Reports and snapshots say it to
the observer.  A run that leaves ends with its save, as a run ends with its last update.
"""

from collections import Counter, deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import count

from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.messages import END, Message
from stalegrid.programs.saving import LEAVE, SAVE
from stalegrid.programs.serving import DOOR, GONE, Served
from stalegrid.programs.softsync import Delivery


@dataclass
class Live(Served):
    """Servers and learners whose order is made by the network: whoever is ready comes next.

    Args:
        asks: whether it may be asked to be saved, or to leave.

    Attributes:
        lost_learners: those found to be gone.
    """

    lost_learners: set[int] = field(default_factory=set)
    asks: bool = field(default=False, kw_only=True)

    def __post_init__(self) -> None:
        self._asked: dict[int, int] = {}  # by the version that it was asked for
        self._pending = 0  # of the next version
        self._computed: dict[int, int] = {}  # version of the last gradient of each learner
        cut = self.cut
        self.lost_learners |= cut.gone
        self._coming: dict[Unit, deque[Delivery]] = {shard: deque() for shard in self.shards}
        self._given = Counter({e: cut.given(unit.group) for unit in self.learners for e in self._weights(unit)})
        self._versions: dict[Unit, int] = {}  # of the weights that each learner was given last
        self._told: dict[Edge, int] = {}  # index of the last report or snapshot
        self._ended: set[Edge] = set()
        self._finished: set[Unit] = set()  # servers that have made all updates

    @property
    def askable(self) -> bool:
        """Whether somebody may ask the run to be saved, or to leave, at a version that was not planned."""
        return self.asks

    @property
    def left(self) -> int | None:
        """The version at which the run leaves, if it was asked to."""
        return min((n for n, code in self._asked.items() if code & LEAVE and n < self.updates), default=None)

    @property
    def settled(self) -> bool:
        """Whether all learners are known to have saved the version that was asked for last."""
        last = max(self._asked, default=0)
        left = {*range(self.rules.learners)} - self.lost_learners
        return all(self._computed.get(number, 0) >= last for number in left)

    def ask(self, code: int) -> None:
        """Take note, where the first server lives, of what is asked of the run, as it takes a gradient."""
        self._pending |= code

    def taken(self, version: int) -> None:
        """Take note that the first server has taken a gradient of the update that makes a version."""
        if self._pending:
            self._ask(version, self._pending)
            self._pending = 0

    def asked_last(self, version: int) -> int:
        """Return which version up to one was asked for last; 0 for none."""
        return max((n for n in self._asked if n <= version), default=0)

    def says_asked(self, edge: Edge) -> bool:
        """Return whether the messages of an edge say which version was asked for last."""
        return self.asks and edge.name in ("weights", "report", "snapshot")

    def saved(self, version: int) -> bool:
        """Return whether the state of all agents is saved at a version, as planned or as it was asked for."""
        return super().saved(version) or (version in self._asked and version < self.updates)

    def may_cross(self, tag: Tag) -> bool:
        """Return whether a message may be under way at a version that is saved."""
        return tag.index != END and (super().may_cross(tag) or (self.asks and tag.edge.name == "push"))

    def heard(self, message: Message) -> None:
        """Take note of a message that has arrived."""
        edge = message.tag.edge
        if message.tag.index == END:
            self._ended.add(edge)
            if self.asks and edge.name != "push" and message.version < self.updates:
                self._ask(message.version, SAVE | LEAVE)
            return
        if self.says_asked(edge) and (last := int(message.tensors[-1].item())):
            self._ask(last, SAVE)
        if edge.name == "weights":
            self._given[edge] += 1
            self._versions[edge.target] = message.version
        elif edge.name == "turn":
            number, said = message.tensors[0].tolist()
            self._coming[edge.target].append(Delivery(number, bool(said & GONE)))
            if said & ~GONE:
                self._ask(message.version + 1, said & ~GONE)
        elif edge.target == OBSERVER:
            self._told[edge] = message.tag.index
        # Not of one that was given up before its gradient came: the other servers were told that it is gone.
        elif edge.target == DOOR and edge.source.group not in self.lost_learners:
            self._coming[DOOR].append(Delivery(edge.source.group))
            self._computed[edge.source.group] = message.version

    def expendable(self, unit: Unit) -> bool:
        """Return whether the others can go on without an agent: without a learner they can."""
        return unit.group >= 0

    def lost(self, unit: Unit) -> None:
        """Take note of a learner that is gone."""
        if unit.group not in self.lost_learners:
            self.lost_learners.add(unit.group)
            # In the order of deliveries: all servers, and a replay, must drop it at the same place.
            self._coming[DOOR].append(Delivery(unit.group, gone=True))

    def late(self) -> bool:
        """Return whether only goodbyes of learners were missing, which servers need not have."""
        # A learner that hangs says no goodbye, and once all updates are made nothing of it is needed.
        before = len(self.lost_learners)
        if self._finished:
            self.lost_learners.update(range(self.rules.learners))
        return len(self.lost_learners) > before

    def deliveries(self, unit: Unit) -> Iterator[Delivery | None]:
        """Yield gradients as they arrive, after those that are known."""
        yield from self.order
        coming = self._coming[unit]
        while True:
            yield coming.popleft() if coming else None

    def serve(self, unit: Unit, deliveries: Iterable[Delivery | None]) -> Iterator[Action | Hoped]:
        """Yield the actions of a server, which ends when all learners have."""
        yield from super().serve(unit, deliveries)
        self._finished.add(unit)
        yield self._stop(unit, self._end)
        # A receive that never completes would abort this process when it leaves the process group.
        while missing := self._goodbyes(unit):
            yield missing

    def learn(self, unit: Unit) -> Iterator[Action | Hoped]:
        """Yield the actions of a learner, until the servers end."""
        if unit.group in self.cut.gone:
            return
        yield from self.load(unit)
        yield from self._compute(unit, count(self.cut.given(unit.group)))

    @property
    def _end(self) -> int:
        """The version at which servers end."""
        return self.updates if self.left is None else self.left

    def _compute(self, unit: Unit, batches: Iterable[int]) -> Generator[Action | Hoped, None, int | None]:
        """Yield what a learner does with batches until the servers end; return its version if they do not before."""
        known = self.saves.since
        for index in batches:
            while missing := self._due(unit, index):
                yield missing
            # All servers answer the same learners, so either all have answered or all have ended.
            ended = not self._open(unit)
            version = self._end if ended else self._versions[unit]
            yield from self.kept(known, version)
            if ended:
                yield self._stop(unit, index)
                return None
            known = version
            yield from self.batch(unit, index)
        return known

    def _stop(self, unit: Unit, index: int) -> Action:
        return Action(Kind.STOP, index, sends=tuple(self._last(unit)))

    def _ask(self, version: int, code: int) -> None:
        self._asked[version] = self._asked.get(version, 0) | code

    def _look(self) -> Iterator[Action | Hoped]:
        """Yield the observer's actions; what was asked for it saves as soon as it is told, before it hears of more."""
        if not self.asks:
            yield from super()._look()
            return
        assert self.watch is not None
        done, since, inbound = set[int](), self.saves.since, self.inbound(OBSERVER)
        for n in range(max(0, since - 1), self.updates):
            if super().saved(n + 1):
                yield Action(Kind.SAVE, n + 1)
            for action in self.watch.heard(self.shards, n, self.updates):
                while missing := [tag for tag in action.needs if self._told.get(tag.edge, -1) < tag.index]:
                    if self._ended.issuperset(inbound):
                        yield from self._unplanned(done, self._end)
                        return
                    yield tuple(missing)
                yield from self._unplanned(done, n + 1)
                yield action
        while left := [edge for edge in inbound if edge not in self._ended]:
            yield tuple(Tag(edge, END) for edge in left)

    def _unplanned(self, done: set[int], version: int) -> Iterator[Action]:
        """Yield the saves that were asked for up to a version, but for those that are done."""
        # Looked up anew after each: meanwhile more may be asked for.
        while due := [n for n in self._asked if n <= version and n not in done]:
            done.add(n := min(due))
            if not super().saved(n) and n < self.updates:
                yield Action(Kind.SAVE, n)

    def _last(self, unit: Unit) -> Iterator[Tag]:
        """Yield the last message of every edge from an agent to those that are left."""
        for target in self.agents if self.asks else self.units:
            # Not to those that are gone: this process would wait at its end for them to take it.
            if target.group not in self.lost_learners:
                yield from (Tag(edge, END) for edge in self.inbound(target) if edge.source == unit)

    def _goodbyes(self, unit: Unit) -> Hoped:
        """Return what a server waits for at the end."""
        edges = (edge for edge in self.inbound(unit) if edge.source.group not in self.lost_learners)
        return tuple(Tag(edge, END) for edge in edges if edge not in self._ended)

    def _due(self, unit: Unit, index: int) -> Hoped:
        """Return what a learner waits for before a batch: all servers answer it, or all end."""
        return tuple(Tag(edge, index) for edge in self._open(unit) if self._given[edge] <= index)

    def _open(self, unit: Unit) -> Sequence[Edge]:
        """Return the edges to a learner that have not ended."""
        return [edge for edge in self._weights(unit) if edge not in self._ended]
