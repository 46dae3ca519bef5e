"""When units exchange with the same stage of other groups: where in a round a rule may put its actions.

Does not know: which rules there are, what an exchange does.
"""

from collections.abc import Iterator
from typing import Protocol

from stalegrid.programs.actions import Action, Edge, Tag
from stalegrid.programs.grid import Unit


class Lateral(Protocol):
    """When a unit exchanges with the same stage of other groups; see :mod:`stalegrid.consensus.rounds`."""

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due at the start of a round, before its forwards."""

    def before_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due between the last backward and the update."""

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due after the update."""

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield every edge on which the unit ever receives."""

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message is under way: sent in an update before, taken in one after."""


class NoLateral:
    """Groups do not talk."""

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = after_update = opening

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield nothing."""
        yield from ()

    def crossing(self, tag: Tag) -> range:
        """Return none."""
        return range(0)
