"""Where in the data a run goes on that takes other batches than the one before it.

Does not know: which samples a batch has, programs.
"""

from dataclasses import dataclass
from typing import Self

from stalegrid.errors import ConfigError
from stalegrid.objects import State
from stalegrid.plans import Plan, dealt_by


@dataclass(frozen=True)
class Position:
    """How far a run has come.

    Args:
        update: that is next, from 0.
        samples: that all groups take in an update.
        epoch: updates of one.
        own: which samples groups have for their own, and how many each takes; None where they share out each epoch.
    """

    update: int
    samples: int
    epoch: int
    own: str | None = None

    @classmethod
    def of(cls, plan: Plan, update: int = 0) -> Self:
        """Return a position in a run.

        Args:
            plan: of the run.
            update: that is next.
        """
        sizes, dealt = plan.training.sizes(plan.grid.groups), dealt_by(plan)
        own = None if dealt is None else f"{dealt.digest} by {', '.join(map(str, sizes))}"
        return cls(update, sum(sizes), plan.updates_per_epoch, own)

    def plain(self) -> State:
        """Return it as plain values."""
        return dict(vars(self))

    def into(self, other: "Position") -> tuple["Position", int]:
        """Return the same place in the data in another run, rounded down to whole updates, and what that repeats.

        Args:
            other: any position in the other run.

        Returns:
            The position, and how many samples before this one's place lie behind that one.

        Raises:
            ConfigError: groups that have samples of their own would have others, or take them in other batches.
        """
        if self.own != other.own:
            raise ConfigError(
                "groups that have samples of their own are each at a place in them of which another number of groups, "
                f"other batches or another split know nothing (samples: {other.own}, then: {self.own}); keep these, or "
                "begin a run with the exported model (start_from)"
            )
        epochs, updates = divmod(self.update, self.epoch)
        seen = updates * self.samples
        made = min(seen // other.samples, other.epoch)
        twice = max(0, seen - made * other.samples)
        return Position(epochs * other.epoch + made, other.samples, other.epoch, other.own), twice
