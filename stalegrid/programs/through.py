"""What units do where the stages measure the model themselves: no process ever has the whole of it.

Does not know: what a measurement says, how a mean is taken.

At a version n that is evaluated, each stage k of the first group, after its update n-1, does::

    C(n)    needs   replica #n      of stage k of every other group       and takes the mean over groups
            sends   mean #n         to the observer                       what the mean is like
                    lent #n         to stages that read a parameter of it, such as the owner of a tied one
    E(c)    needs   tested #n C+c   of stage k-1, but for the first stage, which reads slice c of the test data
                    taken           of slice c - AHEAD, of stage k+1      so no more is ever under way
            sends   tested #n C+c   to stage k+1; the last one sends, after all C slices,
                    measured #n     to the observer
                    taken           of slice c, to stage k-1

Nothing of that can deadlock: whatever a stage needs of another one's first n updates was sent before that one's C(n),
and C(n) and E(c) need nothing of later updates.  A stage waits at C(n) as long as the stages below are behind, which
are as many updates as they are stale; then slices follow each other as batches do.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.watch import Watch

REPLICA, MEAN, LENT, TESTED, TAKEN, MEASURED = "replica", "mean", "lent", "tested", "taken", "measured"

THROUGH = frozenset((REPLICA, MEAN, LENT, TESTED, TAKEN, MEASURED))
"""The names of edges on which all is taken at the version at which it was sent."""

AHEAD = 2
"""Slices that a stage may be ahead of the next one: one that is read while another one is measured."""


class Lent(NamedTuple):
    """A parameter that a stage reads in an evaluation and another one has."""

    owner: int
    name: str
    """Of the owner."""
    reader: int
    known: str
    """What the reader calls it."""


@dataclass(frozen=True, slots=True)
class Through(Watch):
    """What the observer is told, and what stages tell each other, where they measure the model themselves.

    Args:
        stages: K.
        lent: parameters that stages read of others.
    """

    stages: int = 1
    lent: tuple[Lent, ...] = ()

    def pause(self, units: int) -> int:
        """Return for how many steps units do something else than to train, at most: an evaluation."""
        return self.chunks

    def seen(self, unit: Unit, units: Sequence[Unit], update: int, updates: int) -> Iterator[Action]:
        """Yield what a unit tells the observer and other units after an update."""
        yield from self._reported(unit, update, updates)
        version = update + 1
        if not self.snapshots(version, updates):
            return
        if unit.group == _first(units):
            yield self._collected(unit, units, version)
            yield from (self._measured(unit, version, chunk) for chunk in range(self.chunks))
        else:
            mean = Unit(_first(units), unit.stage)
            yield Action(Kind.SNAPSHOT, version, sends=(Tag(Edge(REPLICA, unit, mean), version),))

    def told(self, units: Sequence[Unit], version: int) -> Iterator[Action]:
        """Yield what the observer does with what it is told of a version."""
        yield Action(Kind.COLLECT, version, tuple(Tag(edge, version) for edge in self._means(units)))
        if self.chunks:
            yield Action(Kind.EVALUATE, version, (Tag(self._end(units), version),))

    def inbound(self, units: Sequence[Unit], agent: Unit) -> list[Edge]:
        """Return the edges on which an agent receives for an evaluation, or a report."""
        if agent == OBSERVER:
            reports = [Edge("report", unit, OBSERVER) for unit in units]
            return sorted([*reports, *self._means(units), *([self._end(units)] if self.chunks else [])])
        if agent.group != _first(units):
            return []
        edges = [*self._replicas(agent, units), *(edge for edge in self._loans(agent.group) if edge.target == agent)]
        if self.chunks and agent.stage:
            edges.append(Edge(TESTED, _below(agent), agent))
        if self.chunks > AHEAD and agent.stage < self.stages - 1:
            edges.append(Edge(TAKEN, _above(agent), agent))
        return edges

    def along(self, edge: Edge) -> tuple[Lent, ...]:
        """Return what an edge that lends carries, in the order of its messages."""
        ends = edge.source.stage, edge.target.stage
        return tuple(one for one in self.lent if (one.owner, one.reader) == ends)

    def _collected(self, unit: Unit, units: Sequence[Unit], version: int) -> Action:
        sends = [Edge(MEAN, unit, OBSERVER), *(edge for edge in self._loans(unit.group) if edge.source == unit)]
        needs = self._replicas(unit, units)
        return Action(Kind.COLLECT, version, _tags(needs, version), _tags(sends, version))

    def _measured(self, unit: Unit, version: int, chunk: int) -> Action:
        index, last = version * self.chunks + chunk, unit.stage == self.stages - 1
        needs = [Tag(Edge(TESTED, _below(unit), unit), index)] if unit.stage else []
        if not chunk:
            needs += _tags([edge for edge in self._loans(unit.group) if edge.target == unit], version)
        if not last and chunk >= AHEAD:
            needs.append(Tag(Edge(TAKEN, _above(unit), unit), index - AHEAD))
        sends = [] if last else [Tag(Edge(TESTED, unit, _above(unit)), index)]
        if last and chunk == self.chunks - 1:
            sends.append(Tag(Edge(MEASURED, unit, OBSERVER), version))
        if unit.stage and chunk < self.chunks - AHEAD:
            sends.append(Tag(Edge(TAKEN, unit, _below(unit)), index))
        return Action(Kind.EVALUATE, chunk, tuple(needs), tuple(sends))

    def _means(self, units: Sequence[Unit]) -> list[Edge]:
        return [Edge(MEAN, Unit(_first(units), stage), OBSERVER) for stage in range(self.stages)]

    def _end(self, units: Sequence[Unit]) -> Edge:
        return Edge(MEASURED, Unit(_first(units), self.stages - 1), OBSERVER)

    def _replicas(self, unit: Unit, units: Sequence[Unit]) -> list[Edge]:
        return [Edge(REPLICA, other, unit) for other in units if other.stage == unit.stage and other != unit]

    def _loans(self, group: int) -> list[Edge]:
        pairs = sorted({(one.owner, one.reader) for one in self.lent})
        return [Edge(LENT, Unit(group, owner), Unit(group, reader)) for owner, reader in pairs]


def _first(units: Sequence[Unit]) -> int:
    """Return the group whose stages measure: the first that is there."""
    return units[0].group


def _below(unit: Unit) -> Unit:
    return Unit(unit.group, unit.stage - 1)


def _above(unit: Unit) -> Unit:
    return Unit(unit.group, unit.stage + 1)


def _tags(edges: Iterable[Edge], index: int) -> tuple[Tag, ...]:
    return tuple(Tag(edge, index) for edge in edges)
