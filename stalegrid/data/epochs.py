"""How the samples of an epoch become updates.

Does not know: which samples they are, who trains on them.

All updates of an epoch take equally many samples, but for the last one where the rest of the epoch is not dropped: that
takes what is left.
"""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Division:
    """The updates of an epoch.

    Args:
        samples: of an epoch.
        together: samples that an update takes, of all groups.
        drop_last: whether those that are too few for an update are left out.
    """

    samples: int
    together: int
    drop_last: bool

    @property
    def whole(self) -> int:
        """Updates that take as many samples as they should."""
        return self.samples // self.together

    @property
    def rest(self) -> int:
        """Samples of the incomplete last update; 0 where there is none."""
        return 0 if self.drop_last else self.samples % self.together

    @property
    def updates(self) -> int:
        """Updates of an epoch."""
        return self.whole + (self.rest > 0)

    def span(self, update: int) -> tuple[int, int]:
        """Return where in its epoch an update begins, and how many samples it takes.

        Args:
            update: from 0, without end.
        """
        turn = update % self.updates
        return turn * self.together, self.together if turn < self.whole else self.rest

    def of_a_size(self, updates: int) -> list[range]:
        """Return updates by how many samples they take: the whole ones of the first epoch, then the last of each.

        Args:
            updates: of the run, which may be shorter than an epoch.
        """
        whole = range(min(updates, self.whole))
        last = range(self.whole, updates if self.rest else 0, self.updates)
        return [those for those in (whole, last) if those]
