"""How an update is shared out over groups, which may take unlike numbers of samples.

Does not know: which samples they are, epochs, what a group weighs in a mean.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from stalegrid.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Sizes:
    """The samples of each group in an update; in its samples, groups lie one after another.

    Args:
        each: samples of each group in a whole update.
        micro_batches: parts M into which each group cuts its own.

    Raises:
        ConfigError: a number is smaller than 1, or the micro-batches do not divide a batch.
    """

    each: tuple[int, ...]
    micro_batches: int = 1

    def __post_init__(self) -> None:
        check_positive(groups=len(self.each), batch_size=min(self.each, default=1), micro_batches=self.micro_batches)
        for size in self.each:
            if size % self.micro_batches:
                raise ConfigError(f"{self.micro_batches} micro-batches do not divide a batch of {size} samples")

    @property
    def together(self) -> int:
        """Samples of all groups in a whole update."""
        return sum(self.each)

    @property
    def largest(self) -> int:
        """Samples of the group that takes most."""
        return max(self.each)

    @property
    def step(self) -> int:
        """The fewest samples that can be shared out in the same proportions."""
        return self.together // math.gcd(*self.each) * self.micro_batches

    @property
    def whole(self) -> frozenset[int]:
        """Samples of micro-batches, but for those at the end of an epoch."""
        return frozenset(size // self.micro_batches for size in self.each)

    @property
    def unlike(self) -> list[int]:
        """The first group of each size."""
        return [s for s, size in enumerate(self.each) if size not in self.each[:s]]

    def share(self, group: int, samples: int) -> range:
        """Return which of the samples of an update a group takes.

        Args:
            group: whose.
            samples: of the update, a multiple of :attr:`step`.
        """
        start, size = list(accumulate(self.each, initial=0))[group], self.each[group]
        return range(samples * start // self.together, samples * (start + size) // self.together)


def sizes_of(batch_size: int | Sequence[int], groups: int) -> tuple[int, ...]:
    """Return the samples of each group in an update.

    Args:
        batch_size: one number for all, or one for each.
        groups: S.

    Raises:
        ConfigError: there are other groups than numbers.
    """
    if isinstance(batch_size, int):
        return (batch_size,) * groups
    if len(batch_size) != groups:
        shown = ",".join(map(str, batch_size))
        raise ConfigError(f"batch_size needs one number, or one for each group (batch_size: {shown}, groups: {groups})")
    return tuple(batch_size)


def check_positive(**numbers: int) -> None:
    """Refuse numbers below 1.

    Raises:
        ConfigError: one is.
    """
    for name, value in numbers.items():
        if value < 1:
            raise ConfigError(f"{name} must be at least 1, not {value}")
