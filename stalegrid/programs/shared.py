"""What units do where they measure the mean model together, a share of the test data each.

Does not know: what a measurement says, how a mean is taken.

The observer takes the mean as ever.  At a version n that is evaluated each of the P units, after its update n-1,
does::

    V(n)    sends   snapshot #n     to the observer, whose C(n) takes them all
    E(c)    needs   whole #n        of C(n), before the first slice of its share, which are those with c mod P = p
            sends   part #n         after the last one, to the observer

Nothing of that can deadlock: whatever a unit needs of another one's first n updates was sent before that one's E(c).
A unit waits as long as others are behind; then all measure at once, on as many processors as train.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.watch import Watch

WHOLE, PART = "whole", "part"


@dataclass(frozen=True, slots=True)
class Shared(Watch):
    """What the observer sees, and what units measure for it."""

    def pause(self, units: int) -> int:
        """Return for how many steps each of so many units does something else than to train, at most: its share."""
        return Watch.pause(self, units) - (-self.chunks // units)

    def share(self, unit: Unit, units: Sequence[Unit]) -> range:
        """Return the slices that a unit measures."""
        return range(units.index(unit), self.chunks, len(units))

    def seen(self, unit: Unit, units: Sequence[Unit], update: int, updates: int) -> Iterator[Action]:
        """Yield what a unit tells the observer after an update, and what it measures for it."""
        yield from Watch.seen(self, unit, units, update, updates)
        version, share = update + 1, self.share(unit, units)
        for chunk in share if self.snapshots(version, updates) else ():
            needs = (Tag(Edge(WHOLE, OBSERVER, unit), version),) if chunk == share[0] else ()
            sends = (Tag(Edge(PART, unit, OBSERVER), version),) if chunk == share[-1] else ()
            yield Action(Kind.EVALUATE, chunk, needs, sends)

    def told(self, units: Sequence[Unit], version: int) -> Iterator[Action]:
        """Yield what the observer does with what it is told of a version."""
        sharing = [unit for unit in units if self.share(unit, units)]
        snapshots = tuple(Tag(Edge("snapshot", unit, OBSERVER), version) for unit in units)
        yield Action(Kind.COLLECT, version, snapshots, tuple(Tag(Edge(WHOLE, OBSERVER, u), version) for u in sharing))
        if sharing:
            yield Action(Kind.EVALUATE, version, tuple(Tag(Edge(PART, u, OBSERVER), version) for u in sharing))

    def inbound(self, units: Sequence[Unit], agent: Unit) -> list[Edge]:
        """Return the edges on which an agent receives for what the observer sees, in canonical order."""
        sharing = [unit for unit in units if self.share(unit, units)]
        if agent == OBSERVER:
            return sorted([*Watch.inbound(self, units, agent), *(Edge(PART, unit, OBSERVER) for unit in sharing)])
        return [Edge(WHOLE, OBSERVER, agent)] if agent in sharing else []
