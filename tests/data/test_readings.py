"""What a loader says of how a data set is read; what cannot be followed is refused."""

import warnings
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from stalegrid.data.orders import InOrder, Sampled, Shuffled
from stalegrid.data.readings import check_size, reading_of
from stalegrid.errors import ConfigError

DATA = TensorDataset(torch.arange(10.0), torch.arange(10))


def first(items: list[Any]) -> Tensor:
    found: Tensor = items[0]
    return found


class Pairs:
    """A batch sampler that names no size."""

    def __iter__(self) -> Iterator[list[int]]:
        return iter([[0, 1], [2, 3]])

    def __len__(self) -> int:
        return 2


def test_a_data_set_is_shuffled_and_stacked() -> None:
    reading = reading_of(DATA)
    assert (reading.dataset, reading.collate_fn, reading.batch_size, reading.workers) == (DATA, None, None, 0)
    assert isinstance(reading.order, Shuffled)
    assert (len(reading), reading[3]) == (10, DATA[3])
    assert reading_of(reading) is reading


def test_a_loader_says_all_of_it() -> None:
    reading = reading_of(DataLoader(DATA, 3, num_workers=2, collate_fn=first, drop_last=True, shuffle=True))
    assert (reading.dataset, reading.collate_fn, reading.batch_size, reading.workers) == (DATA, first, 3, 2)
    assert reading.drop_last
    assert reading_of(DataLoader(DATA, collate_fn=default_collate)).collate_fn is None


BATCHED: list[tuple[dict[str, Any], type[Any], int]] = [
    ({"shuffle": True, "batch_size": 2}, Shuffled, 2),
    ({"batch_size": 2}, InOrder, 2),
    ({"batch_size": 2, "sampler": SequentialSampler(DATA)}, InOrder, 2),
    ({"batch_size": 2, "sampler": SequentialSampler(range(4))}, Sampled, 2),
    ({"batch_size": 2, "sampler": RandomSampler(DATA)}, Shuffled, 2),
    ({"batch_size": 2, "sampler": RandomSampler(DATA, replacement=True)}, Sampled, 2),
    ({"batch_size": 2, "sampler": RandomSampler(DATA, num_samples=4)}, Sampled, 2),
    ({"batch_size": 2, "sampler": [4, 2]}, Sampled, 2),
    ({"batch_size": 2, "sampler": DistributedSampler(DATA, num_replicas=1, rank=0)}, Sampled, 2),
    ({"batch_sampler": BatchSampler(SequentialSampler(DATA), 5, True)}, InOrder, 5),
    ({"batch_sampler": Pairs()}, Sampled, 2),
]


@pytest.mark.parametrize(("options", "order", "size"), BATCHED)
def test_the_order_is_the_loaders(options: dict[str, Any], order: type[Any], size: int) -> None:
    reading = reading_of(DataLoader(DATA, **options))
    assert type(reading.order) is order
    assert reading.batch_size == size


class Special(DataLoader[Any]):
    def __iter__(self) -> Any:
        return iter([])


REFUSED: list[tuple[DataLoader[Any], str]] = [
    (Special(DATA), r"in its own way cannot be followed \(data: Special\)"),
    (DataLoader(DATA, worker_init_fn=print), "worker_init_fn of the DataLoader would not be called"),
    (DataLoader(DATA, batch_size=None), r"makes no batches \(batch_size: None\)"),
    (DataLoader(DATA, sampler=DistributedSampler(DATA, 2, 0)), r"part of the samples \(num_replicas: 2\)"),
]


@pytest.mark.parametrize(("loader", "expected"), REFUSED)
def test_a_loader_that_cannot_be_followed_is_refused(loader: DataLoader[Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        reading_of(loader)


def test_the_generator_of_a_shuffle_is_told_of() -> None:
    with pytest.warns(UserWarning, match="not from the generator of the DataLoader"):
        reading_of(DataLoader(DATA, shuffle=True, generator=torch.Generator()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        reading_of(DataLoader(DATA, generator=torch.Generator()))


def test_a_function_that_makes_batches_is_given_once() -> None:
    assert reading_of(DATA, first).collate_fn is first
    assert reading_of(DataLoader(DATA), first).collate_fn is first
    assert reading_of(DataLoader(DATA, collate_fn=first), first).collate_fn is first
    with pytest.raises(ConfigError, match="has a collate_fn, and another one"):
        reading_of(DataLoader(DATA, collate_fn=first), default_collate)


def test_a_batch_size_is_said_once() -> None:
    check_size(reading_of(DATA), 5, "batch_size")
    check_size(reading_of(DataLoader(DATA, 5)), 5, "batch_size")
    with pytest.raises(ConfigError, match=r"\(batch_size: 4, in the loader: 5\)"):
        check_size(reading_of(DataLoader(DATA, 5)), 4, "batch_size")


def test_the_last_batch_is_dropped_as_asked_or_as_a_loader_says() -> None:
    data, loader, dropping = (
        reading_of(DATA),
        reading_of(DataLoader(DATA)),
        reading_of(DataLoader(DATA, drop_last=True)),
    )
    assert [reading.drops_last(None) for reading in (data, loader, dropping)] == [True, False, True]
    for asked in (True, False):
        assert [reading.drops_last(asked) for reading in (data, loader, dropping)] == [asked] * 3
