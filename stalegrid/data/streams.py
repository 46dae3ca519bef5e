"""Batches of data that can only be gone through from its first sample to its last.

Does not know: stages, processes, models, files.

Whoever reads goes through the whole stream and keeps the share of its own groups, so S groups in S processes read it S
times.  In exchange nothing is assumed of a stream but that going through it again gives the same, and S groups see what
one group with a batch as large as all of theirs sees.
"""

from collections.abc import Collection, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stalegrid.data.numbers import Counted
from stalegrid.data.passes import Passes, length_of
from stalegrid.data.readings import Reading
from stalegrid.data.sizes import Sizes, check_positive, sizes_of
from stalegrid.data.sources import Source, source_of
from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors


class Stream:
    """The batches of every group from a stream, in its own order; as :class:`~stalegrid.data.Batches` has them.

    Each update takes the next samples for the batches of all groups, and each group has its slice of them.  A stream
    that ends begins anew; the rest of a pass that fills no update is dropped.

    The batches of a group are to be asked for in order, those of the same update again as long as no later one was.
    Nothing is read before.  A run that goes on goes through what it has trained on once more: a state that a stream
    says itself it has may leave something out, such as what waits in a buffer to be shuffled.

    Args:
        dataset: what has ``__iter__``, whose items are trees of tensors.
        groups: number of groups S.
        batch_size: samples per group and update, one number or one for each group.
        micro_batches: parts M into which a group's samples of one update are cut.
        seed: keys the draws of the data set.
        dtype: type to which floating inputs and targets are cast; None to leave them as they are.
        here: groups whose batches will be asked for; all if left out.

    Raises:
        ConfigError: a number is too small, or the micro-batches do not divide the batch.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        *,
        groups: int,
        batch_size: int | Sequence[int],
        micro_batches: int = 1,
        seed: int = 0,
        dtype: torch.dtype | None = None,
        here: Collection[int] | None = None,
    ) -> None:
        check_positive(groups=groups)
        self.sizes = Sizes(sizes_of(batch_size, groups), micro_batches)
        length = length_of(dataset)
        self.groups = groups
        self.micro_batches = micro_batches
        self.seed = seed
        self.numbers = Counted(self.sizes)
        self.updates_per_epoch = None if length is None else length // self.sizes.together
        self._dataset = dataset
        self._dtype = dtype
        self._done = dict.fromkeys(range(groups) if here is None else here, 0)
        self._start = 0

    def begin(self, batch: int) -> None:
        """Let all groups begin with a batch; nothing was asked for before."""
        self._start = batch // self.micro_batches
        self._done = dict.fromkeys(self._done, self._start)

    @property
    def form(self) -> Form:
        """How the arguments of the model, (args, kwargs), are made of the inputs of any batch."""
        if self._due.read == self._start:
            self.inputs(min(self._done), self._start * self.micro_batches)
        return self._source.form

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples make up a batch, counted over all passes without what is dropped.

        Args:
            group: group, from 0.
            batch: (micro-)batch within the group, from 0, without end.

        Returns:
            int64 (samples of the group / micro_batches,).
        """
        return self.numbers.indices(group, batch)

    def inputs(self, group: int, batch: int) -> Tensors:
        """Return the tensors of the model's arguments, each (B, ...); see :meth:`indices`."""
        return self._read(group, batch).inputs(0, self.indices(group, batch))

    def targets(self, group: int, batch: int) -> Any:
        """Return what the loss gets beside outputs: tensors (B, ...), alone or in a tree; see :meth:`indices`."""
        return self._read(group, batch).targets(0, self.indices(group, batch))

    def checksum(self, group: int, batch: int) -> int:
        """Return 0: nobody else reads the samples of a group."""
        return 0

    def _read(self, group: int, batch: int) -> Source:
        """Read as far as a batch, and forget what its group has done with.

        Raises:
            ConfigError: the batch is of a group of somebody else, or was forgotten.
        """
        update = batch // self.micro_batches
        if update < self._done.get(group, update + 1):
            raise ConfigError(
                f"batch {batch} of group {group} cannot be read: a stream is read in order, by its groups"
            )
        while self._due.read <= update:
            self._due.read_on(self._done)
        for old in range(self._done[group], update):
            self._due.forget(group, old)
        self._done[group] = update
        return self._source

    @cached_property
    def _due(self) -> "_Due":
        return _Due(Passes(self._dataset, self.seed), self.sizes, self._start)

    @cached_property
    def _source(self) -> Source:
        return source_of(Reading(self._due), seed=self.seed, augment=None, dtype=self._dtype)


class _Due(Dataset[Any]):
    """The samples that were read and are still due, by their numbers; to whoever makes batches, a data set.

    Args:
        passes: where they come from.
        sizes: of the groups' batches.
        start: update from which on samples are due; those before are read, and dropped.

    Attributes:
        read: updates whose samples were read.
    """

    def __init__(self, passes: Passes, sizes: Sizes, start: int) -> None:
        self._passes = passes
        self._sizes = sizes
        self._numbers = Counted(sizes)
        self._samples: dict[int, Any] = {}
        self.read = start
        for _ in range(start):
            passes.take(sizes.together)

    def __len__(self) -> int:
        return 0  # nobody counts a stream

    def __getitem__(self, number: int) -> Any:
        return self._samples[number]

    def read_on(self, groups: Collection[int]) -> None:
        """Read the samples of the next update, and keep those of some groups."""
        together = self._sizes.together
        found = self._passes.take(together)
        for group in groups:
            numbers, share = self._numbers.of(group, self.read), self._sizes.share(group, together)
            self._samples.update(zip(numbers, found[share.start : share.stop], strict=True))
        self.read += 1

    def forget(self, group: int, update: int) -> None:
        """Forget the samples of a group for an update."""
        for number in self._numbers.of(group, update):
            del self._samples[number]
