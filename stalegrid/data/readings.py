"""How a data set is read: put together to batches, in an order; said by a DataLoader, or by the caller.

Does not know: groups, how many samples are read at once, who reads.

Nothing of a loader is left out without a word: what would make a run differ from a loop over the loader is refused or
told, and what only makes it faster (pinned memory, workers, how far they read ahead) changes no number.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    default_collate,
)

from stalegrid.data.orders import InOrder, Order, Sampled, Shuffled
from stalegrid.data.passes import is_stream
from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing

Collate = Callable[[list[Any]], Any]
"""Makes a batch of a list of items."""


@dataclass(frozen=True, eq=False)
class Reading(Dataset[Any]):
    """A data set, and how it is read; a data set itself.

    Args:
        dataset: that is read.
        collate_fn: list of items -> batch, a tree of tensors; None for torch's own, which stacks them.
        order: in which samples are visited.
        batch_size: of the loader; None where there was none.
        workers: of the loader, which read ahead.
        drop_last: whether the loader leaves out the incomplete last batch of an epoch; None where there was none.
    """

    dataset: Dataset[Any]
    collate_fn: Collate | None = None
    order: Order = field(default_factory=Shuffled)
    batch_size: int | None = None
    workers: int = 0
    drop_last: bool | None = None

    def drops_last(self, asked: bool | None) -> bool:
        """Return whether training leaves out the incomplete last batch of an epoch.

        Args:
            asked: whether somebody wants it; None for what the loader says, and that it does where there was none.
        """
        said = (answer for answer in (asked, self.drop_last) if answer is not None)
        return next(said, True)

    def __len__(self) -> int:
        size: int = len(self.dataset)  # type: ignore[arg-type]
        return size

    def __getitem__(self, index: int) -> Any:
        return self.dataset[index]


def reading_of(data: Dataset[Any] | DataLoader[Any], collate_fn: Collate | None = None) -> Reading:
    """Return how a data set is read, or what is in its place.

    Args:
        data: a data set, a loader, or what this function has returned.
        collate_fn: list of items -> batch, where the loader has none of its own.

    Raises:
        ConfigError: a loader reads in a way that cannot be followed.
    """
    if isinstance(data, DataLoader):
        data = _of_loader(data)
    elif not isinstance(data, Reading):
        return Reading(data, collate_fn)
    if collate_fn is None:
        return data
    if data.collate_fn is not None and data.collate_fn is not collate_fn:
        raise ConfigError("the DataLoader has a collate_fn, and another one is given (collate_fn); give it once")
    return Reading(**{**vars(data), "collate_fn": collate_fn})


def given(data: Dataset[Any] | DataLoader[Any], collate_fn: Collate | None = None) -> Dataset[Any]:
    """Return a data set as a task holds it: with how it is read, or a stream as it is; see :func:`reading_of`.

    Raises:
        ConfigError: there is a function that makes batches of a stream.
    """
    if not is_stream(data):
        return reading_of(data, collate_fn)
    if collate_fn is not None:
        raise ConfigError("the samples of a stream are stacked (collate_fn is given); let it yield what stacks")
    assert not isinstance(data, DataLoader)
    return data


def check_size(reading: Dataset[Any], batch_size: int | list[int], option: str) -> None:
    """Refuse another batch size than that of the loader.

    Args:
        reading: of a loader, or of none.
        batch_size: that is asked for.
        option: by which it is.

    Raises:
        ConfigError: the loader has another one.
    """
    if isinstance(reading, Reading) and reading.batch_size not in (None, batch_size):
        raise ConfigError(
            f"the DataLoader has batches of another size ({option}: {batch_size}, in the loader: {reading.batch_size})"
            "; say the same in both, or give the data set itself"
        )


def _of_loader(loader: DataLoader[Any]) -> Reading:
    if isinstance(loader.dataset, IterableDataset):
        raise ConfigError(
            f"the DataLoader reads a stream (data: {type(loader.dataset).__name__}); give the stream itself, and "
            "batch_size=..."
        )
    _check_plain(loader)
    order, batch_size, drop_last = _order_of(loader)
    if isinstance(order, Shuffled) and getattr(loader.sampler, "generator", None) is not None:
        warnings.warn(
            "the order is drawn from the seed of the run, not from the generator of the DataLoader; leave that out, "
            "and say seed=...",
            stacklevel=2,
        )
    collate_fn = None if loader.collate_fn is default_collate else loader.collate_fn
    return Reading(loader.dataset, collate_fn, order, batch_size, loader.num_workers, drop_last)


def _check_plain(loader: DataLoader[Any]) -> None:
    kind = type(loader)
    if kind.__iter__ is not DataLoader.__iter__:
        raise ConfigError(
            f"a DataLoader that makes its batches in its own way cannot be followed (data: {kind.__name__}); give one "
            "of torch.utils.data, with a sampler and a collate_fn"
        )
    if loader.worker_init_fn is not None:
        raise ConfigError(
            "samples are also read without workers, where the worker_init_fn of the DataLoader would not be called; "
            "leave it out: every sample draws by a key of its own, and files can be opened when one is read first"
        )
    if loader.batch_sampler is None:
        raise ConfigError(
            "the DataLoader makes no batches (batch_size: None); give it a batch_size, and a data set of single samples"
        )


def _order_of(loader: DataLoader[Any]) -> tuple[Order, int, bool]:
    """Return the order of a loader, its batch size, and whether it drops the rest of an epoch."""
    batches: Any = loader.batch_sampler
    if type(batches) is not BatchSampler:
        _check_all(batches, getattr(batches, "sampler", None))
        size = _size_of(batches)
        return Sampled(batches, size), size, bool(getattr(batches, "drop_last", False))
    return _order_by(batches.sampler, loader.dataset), batches.batch_size, batches.drop_last


def _order_by(sampler: Any, dataset: Any) -> Order:
    if type(sampler) is SequentialSampler and len(sampler) == len(dataset):
        return InOrder()
    plain = type(sampler) is RandomSampler and not sampler.replacement
    if plain and len(sampler) == len(sampler.data_source) == len(dataset):
        return Shuffled()
    _check_all(sampler)
    return Sampled(sampler)


def _check_all(*samplers: Any) -> None:
    """Refuse a sampler that shares an epoch out over processes, as groups do themselves."""
    for sampler in samplers:
        replicas = getattr(sampler, "num_replicas", None)
        if replicas not in (None, 1):
            raise ConfigError(
                f"the sampler gives each process a part of the samples (num_replicas: {replicas}), and groups share "
                "them out themselves; make it with num_replicas=1, rank=0, or leave it out"
            )


def _size_of(batches: Any) -> int:
    """Return how many indices a batch sampler gives at once: what it says, or what its first batch shows."""
    said = getattr(batches, "batch_size", None)
    if isinstance(said, int):
        return said
    with drawing(torch.device("cpu"), 0, "order", 0):
        return len(next(iter(batches), ()))
