"""What units tell the observer, and when.

Does not know: what a report or a snapshot says.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.looking import LONG, LOOK, Looks


@dataclass(frozen=True, slots=True)
class Watch:
    """What the observer sees.

    Args:
        report_every: updates between two reports of a unit.
        snapshot_every: updates between two snapshots of the parameters; the last version always has one.
        chunks: evaluation steps a snapshot takes, so that an engine can run others in between.
        looks: when units show what a diagnosis is made of; None where nothing is diagnosed.
    """

    report_every: int = 1
    snapshot_every: int | None = None
    chunks: int = 0
    looks: Looks | None = field(default=None, kw_only=True)

    def pause(self, units: int) -> int:
        """Return for how many steps each of so many units does something else than to train, at most.

        None, but one that waits for the observer, or shares a process with it, waits for a diagnosis too.
        """
        return 0 if self.looks is None else LONG

    def reports(self, update: int, updates: int) -> bool:
        """Return whether units report after this update of so many."""
        return update + 1 == updates or (update + 1) % self.report_every == 0

    def snapshots(self, version: int, updates: int) -> bool:
        """Return whether units send their parameters at this version."""
        return version == updates or (self.snapshot_every is not None and version % self.snapshot_every == 0)

    def seen(self, unit: Unit, units: Sequence[Unit], update: int, updates: int) -> Iterator[Action]:
        """Yield what a unit tells the observer after an update.

        Args:
            unit: that tells.
            units: all of them.
            update: that it has made.
            updates: of the run.
        """
        yield from self._reported(unit, update, updates)
        if self._shown([unit], update + 1):
            yield Action(Kind.SNAPSHOT, update + 1, sends=(Tag(Edge(LOOK, unit, OBSERVER), update + 1),))
        if self.snapshots(update + 1, updates):
            yield Action(Kind.SNAPSHOT, update + 1, sends=(Tag(Edge("snapshot", unit, OBSERVER), update + 1),))

    def actions(
        self,
        units: Sequence[Unit],
        updates: int,
        saved: Callable[[int], bool] = lambda version: False,
        begins: int = 0,
    ) -> Iterator[Action]:
        """Yield the observer's actions.

        Args:
            units: whom it watches.
            updates: of the run.
            saved: whether a version is saved.
            begins: version at which the run begins.
        """
        for n in range(begins, updates):
            yield from self.heard(units, n, updates)
            if saved(n + 1):
                yield Action(Kind.SAVE, n + 1)

    def heard(self, units: Sequence[Unit], update: int, updates: int) -> Iterator[Action]:
        """Yield what the observer does with that of all units."""
        if self.reports(update, updates):
            yield Action(Kind.REPORT, update, tuple(Tag(Edge("report", u, OBSERVER), update) for u in units))
        if shown := self._shown(units, update + 1):
            yield Action(Kind.DIAGNOSE, update + 1, tuple(Tag(Edge(LOOK, u, OBSERVER), update + 1) for u in shown))
        if self.snapshots(update + 1, updates):
            yield from self.told(units, update + 1)

    def told(self, units: Sequence[Unit], version: int) -> Iterator[Action]:
        """Yield what the observer does with what it is told of a version."""
        yield Action(Kind.COLLECT, version, tuple(Tag(Edge("snapshot", u, OBSERVER), version) for u in units))
        for chunk in range(self.chunks):
            yield Action(Kind.EVALUATE, chunk)

    def inbound(self, units: Sequence[Unit], agent: Unit) -> list[Edge]:
        """Return the edges on which an agent receives for what the observer sees, in canonical order."""
        if agent != OBSERVER:
            return []
        names = ("report", "snapshot", *(() if self.looks is None else (LOOK,)))
        return sorted(Edge(name, unit, OBSERVER) for unit in units for name in names)

    def _shown(self, units: Sequence[Unit], version: int) -> list[Unit]:
        """Return those of some units that show themselves at a version."""
        looks = self.looks
        return [] if looks is None else [unit for unit in units if looks.shown(unit.stage, version)]

    def _reported(self, unit: Unit, update: int, updates: int) -> Iterator[Action]:
        if self.reports(update, updates):
            yield Action(Kind.REPORT, update, sends=(Tag(Edge("report", unit, OBSERVER), update),))
