"""Which samples a group trains on at each batch, and an ordered walk for measuring.

Does not know: stages, processes, models, files.

A batch is a pure function of (seed, group, batch): the stage that needs the inputs and the stage that needs
the targets, in different processes, agree without talking.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stalegrid.data.augment import CropAndFlip
from stalegrid.data.epochs import Division
from stalegrid.data.labels import labels_of
from stalegrid.data.numbers import Numbers
from stalegrid.data.orders import InOrder, Shuffled
from stalegrid.data.owned import Owned
from stalegrid.data.readings import Reading, reading_of
from stalegrid.data.sizes import Sizes, check_positive, sizes_of
from stalegrid.data.sources import Batch, ItemSource, source_of
from stalegrid.data.splits import EVEN, Dealt, split_of
from stalegrid.errors import ConfigError
from stalegrid.objects import Form, Tensors


class Batches:
    """The batches of every group, in the order in which they are trained on.

    Each epoch permutes the whole data set.  Each update takes the next ``groups * batch_size`` samples and
    each group has its slice of them, so one group with a batch of ``S * B`` sees at each update the samples
    that ``S`` groups with batches of ``B`` see; groups may have batches of unlike sizes, which are added up then.  The
    rest of an epoch that fills no update is dropped, or is an update of its own, which is shared out in the same
    proportions.  A loader's order, if it has one of its own, takes the place of the permutation.

    With a split that is not even every group has samples of its own, and draws its batches from these; see
    :mod:`stalegrid.data.owned`.

    With M micro-batches a batch number ``b`` counts micro-batches: part ``b % M`` of update ``b // M``.

    Args:
        dataset: a map-style data set whose items are trees of tensors: pairs (input, target), or anything else; or a
            ``DataLoader``, of which the batch size is not looked at.
        groups: number of groups S.
        batch_size: samples per group and update, one number or one for each group.
        micro_batches: parts M into which a group's samples of one update are cut.
        seed: keys the order, the augmentation and the draws of the data set itself.
        augment: random crop and flip; only for images in an :class:`~stalegrid.data.ArrayDataset`.
        dtype: type to which floating inputs and targets are cast; None to leave them as they are.
        drop_last: whether the rest of an epoch is dropped; None for what a loader says, and else that it is.
        split: which samples groups have, see :mod:`stalegrid.data.splits`; one group has all.

    Raises:
        ConfigError: a number is too small or too large, the micro-batches do not divide the batch, groups and
            micro-batches cannot share the rest of an epoch, the data set has no length or no indices, or there is no
            such split of it.
        DataError: the items of the data set are no trees of tensors, or its labels are not theirs.
    """

    def __init__(
        self,
        dataset: Dataset[Any] | DataLoader[Any],
        *,
        groups: int,
        batch_size: int | Sequence[int],
        micro_batches: int = 1,
        seed: int = 0,
        augment: CropAndFlip | None = None,
        dtype: torch.dtype | None = None,
        drop_last: bool | None = None,
        split: str = EVEN,
    ) -> None:
        check_positive(groups=groups)
        self.sizes = Sizes(sizes_of(batch_size, groups), micro_batches)
        self._reading = reading_of(dataset)
        together = self.sizes.largest // micro_batches
        self._source = source_of(self._reading, seed=seed, augment=augment, dtype=dtype, together=together)
        order, size = self._reading.order, self._source.size
        self.seed = seed
        first = order.indices(size, seed, 0)
        self.division = Division(len(first), self.sizes.together, self._reading.drops_last(drop_last))
        dealt = _dealt(self._reading, split, groups, seed, drop_last)
        self.numbers: Numbers | Owned
        if dealt is None:
            _check_division(self.division, self.sizes)
            self.numbers = Numbers(order, size, seed, self.sizes, self.division, (0, first))
        else:
            self.numbers = Owned(dealt, seed, self.sizes)
        self.groups = groups
        self.micro_batches = micro_batches
        self.updates_per_epoch = self.division.updates

    @property
    def form(self) -> Form:
        """How the arguments of the model, (args, kwargs), are made of the inputs of any batch."""
        return self._source.form

    @property
    def items(self) -> ItemSource | None:
        """What reads the data set item by item; None where samples lie in memory as they are trained on."""
        return self._source if isinstance(self._source, ItemSource) else None

    @property
    def workers(self) -> int:
        """Processes that a loader lets read ahead."""
        return self._reading.workers

    def epoch(self, group: int, batch: int) -> int:
        """Return the pass over its samples, from 0, to which a batch of a group belongs."""
        return self.numbers.epoch(group, batch)

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples of the data set make up a batch.

        Args:
            group: group, from 0.
            batch: (micro-)batch within the group, from 0, without end.

        Returns:
            int64 (samples of the group / micro_batches,), or fewer at the end of an epoch.

        Raises:
            ConfigError: there is no such group or batch.
        """
        return self.numbers.indices(group, batch)

    def inputs(self, group: int, batch: int) -> Tensors:
        """Return the tensors of the model's arguments, each (B, ...); see :meth:`indices`."""
        return self._source.inputs(self.epoch(group, batch), self.indices(group, batch))

    def targets(self, group: int, batch: int) -> Any:
        """Return what the loss gets beside outputs: tensors (B, ...), alone or in a tree; see :meth:`indices`."""
        return self._source.targets(self.epoch(group, batch), self.indices(group, batch))

    def of_each_shape(self, group: int, batch: int) -> list[Batch]:
        """Return batches of all shapes that there may be, made of the samples of one, if anybody knows; else none."""
        epoch, indices = self.epoch(group, batch), self.indices(group, batch)
        return [] if self.items is None else self.items.of_each_shape(epoch, indices)

    def checksum(self, group: int, batch: int) -> int:
        """Return 32 bits of what was just read of a batch, to hold against what another process has read of it."""
        return self._source.checksum(self.epoch(group, batch), self.indices(group, batch))


class Slices:
    """A data set from first sample to last in slices, without augmentation; for measuring a model.

    The last slice may be shorter, or is left out where a loader drops it.  Random transforms of the data set itself
    draw as in epoch 0 of seed 0, so every walk sees the same.

    Args:
        dataset: as for :class:`Batches`; in the order of a sampler, where a loader has one of its own.
        batch_size: samples per slice.
        dtype: type to which floating inputs and targets are cast; None to leave them as they are.

    Raises:
        ConfigError: the batch size is smaller than 1, or the data set has no length or no indices.
        DataError: the items of the data set are no trees of tensors.
    """

    def __init__(
        self, dataset: Dataset[Any] | DataLoader[Any], batch_size: int, dtype: torch.dtype | None = None
    ) -> None:
        check_positive(batch_size=batch_size)
        reading = reading_of(dataset)
        self._source = source_of(reading, seed=0, augment=None, dtype=dtype, together=batch_size)
        order = InOrder() if isinstance(reading.order, Shuffled) else reading.order
        self._order = order.indices(self._source.size, 0, 0)
        end = len(self._order) - (batch_size - 1 if reading.drop_last else 0)
        self._starts = range(0, max(0, end), batch_size)

    @property
    def form(self) -> Form:
        """How the arguments of the model, (args, kwargs), are made of the inputs of any slice."""
        return self._source.form

    def __len__(self) -> int:
        return len(self._starts)

    def __getitem__(self, number: int) -> tuple[Tensors, Any]:
        """Return the inputs and targets of one slice; IndexError past the last."""
        return self.inputs(number), self.targets(number)

    def inputs(self, number: int) -> Tensors:
        """Return the tensors of the model's arguments of one slice; IndexError past the last."""
        return self._source.inputs(0, self.indices(number))

    def targets(self, number: int) -> Any:
        """Return what the loss gets beside outputs of one slice; IndexError past the last."""
        return self._source.targets(0, self.indices(number))

    def indices(self, number: int) -> Tensor:
        """Return which samples a slice has, int64 (B,); IndexError past the last."""
        start = self._starts[number]
        return self._order[start : start + self._starts.step].clone()

    def __iter__(self) -> Iterator[tuple[Tensors, Any]]:
        return (self[number] for number in range(len(self)))


def _dealt(reading: Reading, split: str, groups: int, seed: int, drop_last: bool | None) -> Dealt | None:
    """Return what a split deals to groups; None where they share each epoch out."""
    how = split_of(split)
    if how is None or groups == 1:  # to whom all would be dealt
        return None
    if reading.batch_size is not None:
        raise ConfigError(
            f"a DataLoader has an order of its own, and groups that have samples of their own have theirs (split: "
            f"{split}); give the data set itself, and batch_size=..."
        )
    if drop_last is False:
        raise ConfigError(
            f"groups that have samples of their own end their passes at different updates, so there is no last batch "
            f"that all have (split: {split}, training.drop_last: false); leave it out"
        )
    return Dealt.of(how, labels_of(reading.dataset, len(reading)), groups, seed)


def _check_division(division: Division, sizes: Sizes) -> None:
    groups, samples = len(sizes.each), division.samples
    if not division.updates:
        raise ConfigError(
            f"a batch of {sizes.largest} samples is more than a group's share of "
            f"{samples * sizes.largest // sizes.together} ({samples} samples in {groups} groups); take a smaller "
            "batch, fewer groups or more data, or let the incomplete batch be trained too (training.drop_last: false)"
        )
    if division.rest % sizes.step:
        how = "equally" if len(sizes.unlike) == 1 else f"as {' to '.join(map(str, sizes.each))}"
        raise ConfigError(
            f"the incomplete last batch of an epoch cannot be parted {how} (samples: {division.rest}, groups: "
            f"{groups}, micro-batches: {sizes.micro_batches}), and an update averages over its parts with the weights "
            "of whole ones; drop it (drop_last=True in the DataLoader, or training.drop_last: true), or take a "
            "batch_size that divides the data"
        )
