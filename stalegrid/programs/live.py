"""Servers and learners whose order of deliveries the network makes: whoever is ready comes next.

Does not know: tensors, channels, what an action computes.

Where what is due depends on what arrives, a program yields the messages that may settle it; see
:class:`stalegrid.programs.agenda.Agenda`.  Nobody knows beforehand how many messages an edge carries, so the last one
says that it is the last.
"""

from collections import Counter, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count

from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.messages import END, Message
from stalegrid.programs.serving import DOOR, Served
from stalegrid.programs.softsync import Delivery


@dataclass
class Live(Served):
    """Servers and learners whose order is made by the network: whoever is ready comes next.

    Attributes:
        lost_learners: those found to be gone.
    """

    lost_learners: set[int] = field(default_factory=set)

    def __post_init__(self) -> None:
        cut = self.cut
        self.lost_learners |= cut.gone
        self._coming: dict[Unit, deque[Delivery]] = {shard: deque() for shard in self.shards}
        self._given = Counter({edge: cut.first(edge) for unit in self.learners for edge in self._weights(unit)})
        self._versions: dict[Unit, int] = {}  # of the weights that each learner was given last
        self._ended: set[Edge] = set()
        self._finished: set[Unit] = set()  # servers that have made all updates

    def endless(self, edge: Edge) -> bool:
        """Return whether nobody knows how many messages an edge carries: but for those to the observer."""
        # What the observer gets is counted in updates, so its edges end by themselves.
        return edge.target != OBSERVER

    def due(self, edge: Edge) -> Iterator[Tag]:
        """Yield the messages of an edge, from first to last."""
        if not self.endless(edge):
            return super().due(edge)
        # Of those that were gone already where the run goes on from, nothing comes, not even a goodbye.
        gone = self.cut.gone.intersection((edge.source.group, edge.target.group))
        return (Tag(edge, index) for index in (() if gone else count(self.cut.first(edge))))

    def heard(self, message: Message) -> None:
        """Take note of a message that has arrived."""
        edge = message.tag.edge
        if message.version == END:
            self._ended.add(edge)
        elif edge.name == "weights":
            self._given[edge] += 1
            self._versions[edge.target] = message.version
        elif edge.name == "turn":
            number, gone = message.tensors[0].tolist()
            self._coming[edge.target].append(Delivery(number, bool(gone)))
        # Not of one that was given up before its gradient came: the other servers were told that it is gone.
        elif edge.name == "push" and edge.target == DOOR and edge.source.group not in self.lost_learners:
            self._coming[DOOR].append(Delivery(edge.source.group))

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
        yield Action(Kind.STOP, self.updates, sends=tuple(self._last(unit)))
        # A receive that never completes would abort this process when it leaves the process group.
        while missing := self._goodbyes(unit):
            yield missing

    def learn(self, unit: Unit) -> Iterator[Action | Hoped]:
        """Yield the actions of a learner, until the servers end."""
        if unit.group in self.cut.gone:
            return
        yield from self.load(unit)
        known = self.saves.since
        for index in count(self.cut.given(unit.group)):
            while missing := self._due(unit, index):
                yield missing
            # All servers answer the same learners, so either all have answered or all have ended.
            ended = self._ended.issuperset(self._weights(unit))
            version = self.updates if ended else self._versions[unit]
            yield from self.kept(known, version)
            if ended:
                yield Action(Kind.STOP, index, sends=tuple(self._last(unit)))
                return
            known = version
            yield from self.batch(unit, index)

    def _last(self, unit: Unit) -> Iterator[Tag]:
        """Yield the last message of every edge from an agent to those that are left."""
        for target in self.units:
            # Not to those that are gone: this process would wait at its end for them to take it.
            if target.group not in self.lost_learners:
                yield from (Tag(edge, END) for edge in self.inbound(target) if edge.source == unit)

    def _goodbyes(self, unit: Unit) -> Hoped:
        """Return what a server waits for at the end."""
        edges = (edge for edge in self.inbound(unit) if edge.source.group not in self.lost_learners)
        return tuple(Tag(edge, END) for edge in edges if edge not in self._ended)

    def _due(self, unit: Unit, index: int) -> Hoped:
        """Return what a learner waits for before a batch: all servers answer it, or all end."""
        edges = (edge for edge in self._weights(unit) if edge not in self._ended)
        return tuple(Tag(edge, index) for edge in edges if self._given[edge] <= index)
