"""What engines need of a program, whichever it is.

Does not know: grids, servers, tensors, time.
"""

from collections.abc import Collection, Iterator
from typing import Any

from stalegrid.programs.actions import Action, Edge, Hoped, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.saving import Saves
from stalegrid.programs.watch import Watch


class Agenda:
    """What engines need of a program; by default of one that is known before the run.

    Attributes:
        updates: N.
        watch: what the observer sees; None for no observer.
        saves: when it is saved, and from where it goes on.
    """

    updates: int
    watch: Watch | None
    saves: Saves

    @property
    def askable(self) -> bool:
        """Whether somebody may ask the run to be saved, or to leave, at a version that was not planned."""
        return False

    @property
    def left(self) -> int | None:
        """The version at which the run has left before its end; None where it has not."""
        return None

    @property
    def units(self) -> list[Unit]:
        """Those that train, in canonical order."""
        raise NotImplementedError

    @property
    def agents(self) -> list[Unit]:
        """All agents in canonical order, the observer last."""
        # The observer last, so that units that share its process come first in each turn.
        return [*self.units, *([OBSERVER] if self.watch else [])]

    def actions(self, agent: Unit) -> Iterator[Action | Hoped]:
        """Yield the agent's actions from the first to the last; where the next depends on what arrives, what may."""
        raise NotImplementedError

    def saved(self, version: int) -> bool:
        """Return whether the state of all agents is saved at a version; the end of a run needs no save."""
        return version < self.updates and self.saves.planned(version)

    def begins_as(self, agent: Unit) -> Unit:
        """Return whose state an agent has where the run goes on: its own, but for one that comes back."""
        return agent

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message is under way, or may be for all that its sender knows."""
        raise NotImplementedError

    def may_cross(self, tag: Tag) -> bool:
        """Return whether a message may be under way at a version that is saved."""
        return any(self.saved(version) for version in self.crossing(tag))

    def outlived(self, tag: Tag) -> Tag | None:
        """Return the message that has certainly been taken when another one is sent, where that shows nowhere else."""
        return None

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        raise NotImplementedError

    def heard(self, message: Any) -> None:
        """Take note of a message that has arrived; what is due does not depend on it."""

    def silence(self, agents: Collection[Unit]) -> int:
        """Return for how many steps of others agents may rightly hear nothing."""
        if self.watch is None:
            return 1
        # The observer alone hears nothing for as long as units take to their next report.
        return (self.watch.report_every if set(agents) == {OBSERVER} else 1) + self.watch.pause(len(self.units))

    def expendable(self, unit: Unit) -> bool:
        """Return whether the others can go on without an agent: they cannot."""
        return False

    def lost(self, unit: Unit) -> None:
        """Take note of an expendable agent that is gone."""

    def late(self) -> bool:
        """Take note that nothing came for as long as anything may take; return whether to go on all the same."""
        return False

    def port(self, edge: Edge) -> object:
        """Return what edges share whose messages must leave one after another: nothing."""
        return edge
