"""How samples are read, by index and epoch, from tensors in memory or from a user's own data set.

Does not know: in which order samples are visited, groups.

A batch is a tree of tensors.  One that is a pair is taken for (input, target): the model is called with the input, and
the loss with the target.  Any other goes whole to the model, and whole to the loss in the place of the target.
"""

import zlib
from collections.abc import Iterator, Mapping, Sized
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, IterableDataset, default_collate

from stalegrid.data.arrays import ArrayDataset
from stalegrid.data.augment import CropAndFlip
from stalegrid.data.padding import OfFewShapes
from stalegrid.data.patience import within
from stalegrid.data.readings import Collate, Reading
from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import PLACE, Form, Tensors, mapped
from stalegrid.seeds import kept, key

CPU = torch.device("cpu")

Arguments = tuple[tuple[Any, ...], dict[str, Any]]
"""What a model is called with."""


class Source(Protocol):
    """Reads samples; its methods are pure functions of their arguments, if the data set is one."""

    size: int
    """Number of samples."""

    @property
    def form(self) -> Form:
        """How the arguments of the model, (args, kwargs), are made of the inputs; the same for all batches."""

    def inputs(self, epoch: int, indices: Tensor) -> Tensors:
        """Return the inputs of the samples ``indices``, int64 (B,), as they look in ``epoch``."""

    def targets(self, epoch: int, indices: Tensor) -> Any:
        """Return the targets of the samples ``indices``, int64 (B,), as they look in ``epoch``: a tree of tensors."""

    def checksum(self, epoch: int, indices: Tensor) -> int:
        """Return a number of 32 bits of what was just read of the samples; 0 where it cannot change."""


def source_of(
    reading: Reading, *, seed: int, augment: CropAndFlip | None, dtype: torch.dtype | None, together: int = 1
) -> "ArraySource | ItemSource":
    """Choose how to read a data set.

    Args:
        reading: a map-style data set, whose batches are trees of tensors.
        seed: keys every random draw.
        augment: applied to images; only for an :class:`ArrayDataset`.
        dtype: type that floating inputs and targets are cast to; None to leave them as they are.
        together: samples in a batch; what a batch consists of is found out from as many, if they are not just stacked.

    Returns:
        The source.

    Raises:
        ConfigError: the data set has no length or no indices, ``augment`` does not fit it, or ``dtype``
            is not floating.
        DataError: its first item is of no kind that a model can be called with.
    """
    if dtype is not None and not dtype.is_floating_point:
        raise ConfigError(f"the type of floating inputs cannot be {dtype}")
    dataset = reading.dataset
    if isinstance(dataset, ArrayDataset) and reading.collate_fn is None:
        return ArraySource(dataset, seed, augment, dtype)
    if augment is not None:
        what = type(dataset).__name__ if reading.collate_fn is None else "a collate_fn"
        raise ConfigError(f"augment needs an ArrayDataset, not {what}; let the data set transform its own items")
    return ItemSource(dataset, seed, dtype, reading.collate_fn, together)


class ArraySource:
    """Reads whole batches from tensors in memory; targets are read without building images."""

    def __init__(
        self, dataset: ArrayDataset, seed: int, augment: CropAndFlip | None, dtype: torch.dtype | None
    ) -> None:
        if augment is not None and dataset.inputs.ndim != 4:
            raise ConfigError(f"augment needs images (N, C, H, W), not inputs of shape {tuple(dataset.inputs.shape)}")
        self.size = len(dataset)
        self._dataset = dataset
        self._seed = seed
        self._augment = augment
        self._dtype = dtype
        self._drawn: tuple[int, Tensor] | None = None

    @property
    def form(self) -> Form:
        """Return the form of one argument; see :class:`Source`."""
        return Form(((PLACE,), {}))

    def inputs(self, epoch: int, indices: Tensor) -> Tensors:
        """Return prepared inputs, augmented where asked; see :class:`Source`."""
        raw = self._dataset.inputs[indices]
        if self._augment is not None:
            raw = self._augment.apply(raw, self._draws(self._augment, epoch)[indices])
        return (self._dataset.prepare(raw, self._dtype),)

    def targets(self, epoch: int, indices: Tensor) -> Tensor:
        """Return labels, the same in every epoch; see :class:`Source`."""
        return self._dataset.targets[indices]

    def checksum(self, epoch: int, indices: Tensor) -> int:
        """Return 0: tensors in memory stay what they are; see :class:`Source`."""
        return 0

    def _draws(self, augment: CropAndFlip, epoch: int) -> Tensor:
        if self._drawn is None or self._drawn[0] != epoch:
            self._drawn = epoch, augment.draw(self._seed, epoch, self.size)
        return self._drawn[1]


@dataclass(frozen=True, slots=True)
class Batch:
    """A batch that was read.

    Args:
        arguments: tensors of the model's arguments, each (B, ...).
        wanted: tensors of the targets.
        form: of the targets.
    """

    arguments: Tensors
    wanted: Tensors
    form: Form

    def inputs(self) -> Tensors:
        """Return what the model gets; a copy, so that whoever changes it in place does not change what others get."""
        return tuple(part.clone() for part in self.arguments)

    def targets(self) -> Any:
        """Return what the loss gets beside outputs; a copy."""
        return self.form.fill([part.clone() for part in self.wanted])

    def checksum(self) -> int:
        """Return 32 bits of inputs and targets together."""
        found = 0
        for part in (*self.arguments, *self.wanted):
            # Against accidents, not against attacks, and for every batch: so a checksum that is cheap.
            found = zlib.crc32(bytes_of(part), found)
        return found


class ItemSource:
    """Reads a user's data set item by item.

    The global generators of torch, NumPy and Python are set for each sample, so a random transform that draws from
    them is a pure function of (seed, epoch, sample); and once more for each batch, where a function of the user's makes
    it.

    Something is read at once, so that a data set of the wrong kind shows before any process starts.
    """

    def __init__(
        self,
        dataset: Dataset[Any],
        seed: int,
        dtype: torch.dtype | None,
        collate_fn: Collate | None = None,
        together: int = 1,
    ) -> None:
        self.size = _size(dataset)
        self._dataset = dataset
        self._seed = seed
        self._dtype = dtype
        self._collate_fn = collate_fn
        self._last: tuple[int, Tensor, Batch] | None = None
        self._form: Form | None = None  # of arguments and targets
        if self.size:
            self._fetch(0, torch.arange(1 if collate_fn is None else min(together, self.size)))

    @property
    def form(self) -> Form:
        """Return the form of the model's arguments; see :class:`Source`."""
        return Form(((), {}) if self._form is None else self._form.outline[0])

    def inputs(self, epoch: int, indices: Tensor) -> Tensors:
        """Return collated inputs; see :class:`Source`."""
        return self._fetch(epoch, indices).inputs()

    def targets(self, epoch: int, indices: Tensor) -> Any:
        """Return collated targets; see :class:`Source`."""
        return self._fetch(epoch, indices).targets()

    def checksum(self, epoch: int, indices: Tensor) -> int:
        """Return the checksum of inputs and targets together; see :class:`Source`."""
        return self._fetch(epoch, indices).checksum()

    def _fetch(self, epoch: int, indices: Tensor) -> Batch:
        """Read a batch, once where its inputs and its targets are asked for in turn."""
        last = self._last
        if last is None or last[0] != epoch or not torch.equal(last[1], indices):
            # One batch is enough: a unit that reads both asks for inputs and targets of a batch one after the other.
            self._last = last = epoch, indices.clone(), self.batch(self.read(epoch, indices))
        return last[2]

    def read(self, epoch: int, indices: Tensor, patience: float | None = None) -> Tensors:
        """Read a batch, in any process, and return the tensors of which :meth:`batch` makes it.

        Args:
            epoch: in which samples are read.
            indices: of the samples.
            patience: seconds that each of them may take, in a process that only reads; None for no limit.

        Raises:
            DataError: a sample cannot be read, or the batch is made of other parts than the first one.
        """
        return self._tensors(
            self._made(epoch, indices.tolist(), patience), f"(sample: {int(indices[0])}, epoch: {epoch})"
        )

    def of_each_shape(self, epoch: int, indices: Tensor) -> list[Batch]:
        """Return a batch of each shape that there may be, if what makes batches knows them; else none.

        Args:
            epoch: in which samples are read.
            indices: of samples of which a batch may be made.
        """
        if not isinstance(self._collate_fn, OfFewShapes):
            return []
        where = f"(samples: {int(indices[0])}, ..., epoch: {epoch})"
        with kept(CPU), _one_thread():
            items = [self._item(epoch, index) for index in indices.tolist()]
            key(CPU, self._seed, "collate", epoch, *indices.tolist())
            made = _collated(lambda items: list(self._collate_fn.of_each_shape(items)), items, where)
        return [self.batch(self._tensors(batch, where)) for batch in made]

    def _tensors(self, made: Any, where: str) -> Tensors:
        form, tensors = Form.split(_parted(mapped(self._cast, made)))
        if form != (self._form or form):
            raise DataError(
                f"a batch has other parts than the first one (parts: {form}, first: {self._form}) {where}; let all "
                "samples have the same, and make tensors of numbers that differ"
            )
        self._form = form
        return tensors

    def batch(self, tensors: Tensors) -> Batch:
        """Return the batch of which :meth:`read` has returned the tensors."""
        assert self._form is not None
        arguments, targets = self._form.outline
        number = sum(leaf is PLACE for leaf in pytree.tree_leaves(arguments))
        return Batch(tensors[:number], tensors[number:], Form(targets))

    def _cast(self, values: Tensor) -> Tensor:
        return values.to(self._dtype) if self._dtype is not None and values.is_floating_point() else values

    def _made(self, epoch: int, indices: list[int], patience: float | None) -> Any:
        # The generators once: to put them back takes longer than to read a small sample.
        with kept(CPU), _one_thread():
            items = [self._item(epoch, index, patience) for index in indices]
            if self._collate_fn is None:
                return _stacked(items, epoch, indices)
            key(CPU, self._seed, "collate", epoch, *indices)
            return _collated(self._collate_fn, items, f"(samples: {indices[0]}, ..., epoch: {epoch})", patience)

    def _item(self, epoch: int, index: int, patience: float | None = None) -> Any:
        try:
            key(CPU, self._seed, "sample", epoch, index)
            with within(patience):
                return self._dataset[index]
        except Exception as problem:  # the data set is the user's: anything can be raised
            where = f"(sample: {index}, epoch: {epoch})"
            raise DataError(f"a sample cannot be read {where}: {type(problem).__name__}: {problem}") from problem


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute with one thread, as in a process that reads ahead: another number may give other bits."""
    before = torch.get_num_threads()
    if before == 1:
        yield
        return
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def bytes_of(values: Tensor) -> bytes:
    """Return the content of a tensor of any type, in the order of its indices."""
    return values.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()


def _size(dataset: Dataset[Any]) -> int:
    sized = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    if isinstance(dataset, IterableDataset) or not sized:
        raise ConfigError(
            f"{type(dataset).__name__} is not a map-style data set; give it __getitem__ and __len__, "
            "so that any process can read any sample"
        )
    return len(cast(Sized, dataset))


def _stacked(items: list[Any], epoch: int, indices: list[int]) -> Any:
    """Stack samples, naming the first that does not stack with those before it."""
    try:
        return _stack(items)
    except DataError as problem:
        odd = next(i for i in range(len(items)) if not _stacks(items[: i + 1]))
        raise DataError(f"{problem} (sample: {indices[odd]}, epoch: {epoch})") from problem


def _stack(items: list[Any]) -> Any:
    try:
        batch = default_collate(items)
    except Exception as error:  # what is in an item is the user's: anything can be raised
        first = "make their lists of numbers tensors, and " * any(map(_has_list, items))
        raise DataError(
            f"samples do not stack into a batch, {first}pad them in a collate_fn, such as stalegrid.pad_to([...]): "
            f"{error}"
        ) from error
    if (odd := _odd(batch)) is not None:
        raise DataError(
            "a sample must be made of tensors and numbers, in tuples, lists and dictionaries, but has something else "
            f"(it is: {_kind(items[0])}, at: {odd[0]}); leave it out of the data set, or give a collate_fn"
        )
    return batch


def _has_list(item: Any) -> bool:
    """Return whether an item has a list of numbers, of which each place would be stacked by itself."""
    found: list[Any] = []
    pytree.tree_map(found.append, item, is_leaf=lambda leaf: isinstance(leaf, list))
    return any(isinstance(leaf, list) and leaf and all(isinstance(x, int | float) for x in leaf) for leaf in found)


def _collated(collate_fn: Collate, items: list[Any], where: str, patience: float | None = None) -> Any:
    """Let a function of the user's make a batch."""
    try:
        with within(patience):
            batch = _opened(collate_fn(items))
    except Exception as problem:  # the function is the user's: anything can be raised
        raise DataError(f"the collate_fn fails {where}: {type(problem).__name__}: {problem}") from problem
    if (odd := _odd(batch)) is not None:
        raise DataError(
            "a batch must be made of tensors, and of numbers and None that are the same in every batch, in tuples, "
            f"lists and dictionaries, but the collate_fn returns something else (it is: {_kind(odd[1])}, at: {odd[0]}) "
            f"{where}; leave it out, or return a tensor"
        )
    return batch


def _opened(batch: Any) -> Any:
    """Return a batch with mappings of other kinds, such as a tokenizer's, as dictionaries."""
    return pytree.tree_map(lambda leaf: _opened(dict(leaf)) if isinstance(leaf, Mapping) else leaf, batch)


def _odd(batch: Any) -> tuple[str, Any] | None:
    """Return the place and the value of the first leaf that cannot be part of a batch, if there is one."""
    leaves = pytree.tree_leaves_with_path(batch)
    wrong = ((path, leaf) for path, leaf in leaves if not isinstance(leaf, Tensor | bool | int | float | None))
    return next(((pytree.keystr(path) or "the top", leaf) for path, leaf in wrong), None)


def _parted(batch: Any) -> tuple[Arguments, Any]:
    """Return the arguments of the model, and what the loss gets beside its outputs."""
    pair = isinstance(batch, tuple | list) and len(batch) == 2
    inputs, targets = batch if pair else (batch, batch)
    if isinstance(inputs, Mapping):
        return ((), dict(inputs)), targets
    return (tuple(inputs) if isinstance(inputs, tuple | list) else (inputs,), {}), targets


def _stacks(items: list[Any]) -> bool:
    try:
        _stack(items)
    except DataError:
        return False
    return True


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"a {name} of length {len(value)}" if isinstance(value, tuple | list) else f"a {name}"
