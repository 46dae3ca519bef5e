"""Where in the data a run goes on that takes other batches than the one before it.

Does not know: which samples a batch has, programs.
"""

from dataclasses import dataclass
from typing import Self

from stalegrid.objects import State
from stalegrid.plans import Plan


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        update: that is next, from 0.
        samples: that all groups take in an update.
        epoch: updates of one.
    """

    update: int
    samples: int
    epoch: int

    @classmethod
    def of(cls, plan: Plan, update: int = 0) -> Self:
        """Return a position in a run.

        Args:
            plan: of the run.
            update: that is next.
        """
        return cls(update, sum(plan.training.sizes(plan.grid.groups)), plan.updates_per_epoch)

    def plain(self) -> State:
        """Return it as plain values."""
        return dict(vars(self))

    def into(self, other: "Position") -> tuple["Position", int]:
        """Return the same place in the data in another run, rounded down to whole updates, and what that repeats.

        Args:
            other: any position in the other run.

        Returns:
            The position, and how many samples before this one's place lie behind that one.
        """
        epochs, updates = divmod(self.update, self.epoch)
        seen = updates * self.samples
        made = min(seen // other.samples, other.epoch)
        return Position(epochs * other.epoch + made, other.samples, other.epoch), max(0, seen - made * other.samples)
