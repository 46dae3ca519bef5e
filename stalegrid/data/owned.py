"""Which samples make up each batch, by their numbers, where every group has samples of its own.

Does not know: what a sample is, who reads it, how samples came to groups.

Each group goes through its own samples, pass after pass, each in an order of its own, and drops the rest of a pass that
fills no batch.  So groups with fewer samples begin their passes more often, and no update waits for, or leaves out,
anybody.  An epoch of the run is still as many updates as take the number of all samples.
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stalegrid.data.sizes import Sizes
from stalegrid.data.splits import Dealt
from stalegrid.errors import ConfigError
from stalegrid.seeds import generator


@dataclass(eq=False)
class Owned:
    """The samples of the batches of every group; as :class:`~stalegrid.data.Numbers` has them.

    Args:
        dealt: the samples of every group.
        seed: keys the order.
        sizes: of the groups' batches.
        kept: by group, a pass and its order, so that who asks for its batches does not draw it for each.

    Raises:
        ConfigError: a group has less than a batch.
    """

    dealt: Dealt
    seed: int
    sizes: Sizes
    kept: dict[int, tuple[int, Tensor]] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        for group, (own, size) in enumerate(zip(self.dealt.samples, self.sizes.each, strict=True)):
            if len(own) < size:
                raise ConfigError(
                    f"the split leaves a group, or learner, without a batch (group: {group}, samples: {len(own)}, "
                    f"batch_size: {size}, seed: {self.seed}); take smaller batches, fewer groups, a larger ALPHA, or "
                    "another seed"
                )

    def updates(self, group: int) -> int:
        """Return how many updates a pass of a group is."""
        return len(self.dealt.samples[group]) // self.sizes.each[group]

    def epoch(self, group: int, batch: int) -> int:
        """Return the pass of a group, from 0, to which a batch belongs."""
        return batch // self.sizes.micro_batches // self.updates(group)

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples of the data set make up a batch, int64 (B,).

        Raises:
            ConfigError: there is no such group or batch.
        """
        groups, micro_batches = len(self.sizes.each), self.sizes.micro_batches
        if not 0 <= group < groups or batch < 0:
            raise ConfigError(f"no batch {batch} of group {group} among {groups} groups")
        turn, size = self.updates(group) * micro_batches, self.sizes.each[group] // micro_batches
        start = batch % turn * size
        return self._order(group, batch // turn)[start : start + size].clone()

    def samples(self, group: int, update: int) -> int:
        """Return how many samples a group takes in an update."""
        return self.sizes.each[group]

    def of_a_size(self, updates: int) -> list[range]:
        """Return updates by how many samples they take: all take as many; a pass of the group that has most."""
        return [range(min(updates, max(map(self.updates, range(len(self.sizes.each))))))]

    def apart(self) -> "Owned":
        """Return them for those who have no data set."""
        return Owned(self.dealt, self.seed, self.sizes)

    def _order(self, group: int, number: int) -> Tensor:
        if group not in self.kept or self.kept[group][0] != number:
            own = self.dealt.samples[group]
            order = torch.randperm(len(own), generator=generator(self.seed, "order", number, group))
            self.kept[group] = number, own[order]
        return self.kept[group][1]

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "kept": {}}  # drawn anew where it is needed
