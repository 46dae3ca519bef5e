"""Orders of samples: functions of (seed, epoch), or refused."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DistributedSampler, RandomSampler, SubsetRandomSampler, WeightedRandomSampler

from stalegrid.data.orders import InOrder, Sampled, Shuffled
from stalegrid.errors import DataError

SIZE = 12


class Own:
    """Yields whatever a function says, of the epoch."""

    def __init__(self, yields: Any, length: int | None = SIZE) -> None:
        self.yields, self.epoch, self.asked = yields, 0, 0
        if length is not None:
            self.__class__ = type("Long", (Own,), {"__len__": lambda _: length})

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        self.asked += 1
        return iter(self.yields(self))


def of(sampler: Any, epoch: int = 0, seed: int = 0, batch_size: int | None = None) -> list[int]:
    found: list[int] = Sampled(sampler, batch_size).indices(SIZE, seed, epoch).tolist()
    return found


def test_orders_of_our_own() -> None:
    assert InOrder().indices(5, 3, 7).tolist() == [0, 1, 2, 3, 4]
    drawn = [Shuffled().indices(SIZE, seed, epoch).tolist() for seed in (0, 1) for epoch in (0, 1)]
    assert all(sorted(one) == list(range(SIZE)) for one in drawn)
    assert len({tuple(one) for one in drawn}) == 4
    assert Shuffled().indices(SIZE, 0, 1).tolist() == drawn[1]


@pytest.mark.parametrize("epoch", [0, 3])
def test_a_sampler_that_is_told_the_epoch_says_its_order(epoch: int) -> None:
    sampler: Any = DistributedSampler(range(SIZE), num_replicas=1, rank=0, seed=5)  # type: ignore[arg-type]
    found = of(sampler, epoch)
    sampler.set_epoch(epoch)
    assert found == list(sampler)


@pytest.mark.parametrize(
    "sampler",
    [
        RandomSampler(range(SIZE), replacement=True),
        SubsetRandomSampler([1, 4, 7, 8]),
        WeightedRandomSampler([1.0] * SIZE, 20),
        Own(lambda _: random.sample(range(SIZE), 4)),
        Own(lambda _: np.random.permutation(SIZE)),
    ],
    ids=["replacement", "subset", "weighted", "python", "numpy"],
)
def test_a_sampler_that_draws_from_global_generators_draws_by_seed_and_epoch(sampler: Any) -> None:
    state = torch.get_rng_state()
    first = of(sampler)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(3)
    random.random()
    np.random.rand()
    assert of(sampler) == first
    assert of(sampler, epoch=1) != first
    assert of(sampler, seed=1) != first


def test_numbers_of_torch_and_numpy_are_indices() -> None:
    assert of(Own(lambda _: torch.tensor([3, 1]))) == [3, 1]
    assert of(Own(lambda _: np.array([3, 1]))) == [3, 1]


def test_batches_are_joined_and_the_last_may_be_smaller() -> None:
    assert of(Own(lambda s: [[s.epoch, 5], (7, 8), torch.tensor([2])]), epoch=4, batch_size=2) == [4, 5, 7, 8, 2]


GENERATOR = torch.Generator()

BAD: dict[str, tuple[Any, int | None, str]] = {
    "own generator": (RandomSampler(range(SIZE), generator=GENERATOR), None, "RandomSampler gives another order"),
    "counts": (Own(lambda s: [s.asked % SIZE]), None, r"gives another order when .* \(epoch: 2\)"),
    "too large": (Own(lambda _: [3, SIZE]), None, r"no index of a sample \(it is: 12, samples: 12, epoch: 2\)"),
    "negative": (Own(lambda _: [-1]), None, r"\(it is: -1"),
    "fraction": (Own(lambda _: [0.5]), None, r"\(it is: 0.5"),
    "longer than it says": (Own(lambda _: range(SIZE), 4), None, r"more than it says .* \(len: 4, epoch: 2\)"),
    "endless": (Own(lambda _: iter(int, 1), None), None, "has no end"),
    "sizes": (Own(lambda _: [[1, 2], [3], [4, 5]]), 2, r"several sizes \(sizes: 2 and 1, epoch: 2\)"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_order_is_refused(name: str) -> None:
    sampler, batch_size, expected = BAD[name]
    with pytest.raises(DataError, match=expected):
        of(sampler, epoch=2, batch_size=batch_size)
