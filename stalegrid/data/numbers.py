"""Which samples of a data set make up each batch, by their numbers.

Does not know: what a sample is, who reads it.

Who is sent a batch, and does not read it, knows by these how many samples it has and which they are.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stalegrid.data.epochs import Division
from stalegrid.data.orders import InOrder, Order, Shuffled
from stalegrid.data.sizes import Sizes
from stalegrid.errors import ConfigError, DataError


@dataclass
class Numbers:
    """The samples of the batches of every group, where the data set has indices; see :class:`~stalegrid.data.Batches`.

    Args:
        order: in which samples are visited.
        size: samples of the data set.
        seed: keys the order.
        sizes: of the groups' batches.
        division: of an epoch into updates.
        kept: an epoch and its order, so that who asks for its batches does not draw it for each.
    """

    order: Order
    size: int
    seed: int
    sizes: Sizes
    division: Division
    kept: tuple[int, Tensor] | None = field(default=None, repr=False, compare=False)

    def epoch(self, group: int, batch: int) -> int:
        """Return the epoch, from 0, to which a batch belongs, of whichever group."""
        return batch // self.sizes.micro_batches // self.division.updates

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples of the data set make up a batch, int64 (B,).

        Raises:
            ConfigError: there is no such group or batch.
            DataError: an epoch has another number of samples than the first one.
        """
        groups, micro_batches = len(self.sizes.each), self.sizes.micro_batches
        if not 0 <= group < groups or batch < 0:
            raise ConfigError(f"no batch {batch} of group {group} among {groups} groups")
        update, part = divmod(batch, micro_batches)
        # Groups lie within an update, not an update within a group's share: so S groups see what one group with a batch
        # of S B sees.
        start, samples = self.division.span(update)
        share = self.sizes.share(group, samples)
        size = len(share) // micro_batches
        start += share.start + part * size
        # A slice would let whoever gets it change the order that is kept.
        return self._permutation(self.epoch(group, batch))[start : start + size].clone()

    def _permutation(self, epoch: int) -> Tensor:
        if self.kept is None or self.kept[0] != epoch:
            order = self.order.indices(self.size, self.seed, epoch)
            if len(order) != self.division.samples:
                raise DataError(
                    f"the sampler gives another number of samples (epoch 0: {self.division.samples}, epoch {epoch}: "
                    f"{len(order)}); let every epoch have as many"
                )
            self.kept = epoch, order
        return self.kept[1]

    def samples(self, group: int, update: int) -> int:
        """Return how many samples a group takes in an update."""
        return len(self.sizes.share(group, self.division.span(update)[1]))

    def of_a_size(self, updates: int) -> list[range]:
        """Return updates by how many samples they take, as many as show all batches; see :class:`Division`."""
        return self.division.of_a_size(updates)

    def apart(self) -> "Numbers | None":
        """Return them for those who have no data set; None where the order is that of a sampler, which may hold it."""
        if not isinstance(self.order, InOrder | Shuffled):
            return None
        return Numbers(self.order, self.size, self.seed, self.sizes, self.division)

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "kept": None}  # drawn anew where it is needed


@dataclass(frozen=True)
class Counted:
    """The samples of the batches of every group, counted over all passes of a stream without what is dropped.

    Args:
        sizes: of the groups' batches.
    """

    sizes: Sizes

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples make up a batch, int64 (B,)."""
        update, part = divmod(batch, self.sizes.micro_batches)
        numbers = self.of(group, update)
        size = len(numbers) // self.sizes.micro_batches
        start = numbers.start + part * size
        return torch.arange(start, start + size)

    def of(self, group: int, update: int) -> range:
        """Return which samples a group takes in an update."""
        share = self.sizes.share(group, self.sizes.together)
        first = update * self.sizes.together
        return range(first + share.start, first + share.stop)

    def samples(self, group: int, update: int) -> int:
        """Return how many samples a group takes in an update."""
        return self.sizes.each[group]

    def apart(self) -> "Counted":
        """Return them for those who have no data set."""
        return self
