"""Which samples a batch has, for those who do not read it."""

import pickle
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, RandomSampler, TensorDataset

from stalegrid.data import Batches, Stream
from stalegrid.errors import ConfigError

DATA = TensorDataset(torch.arange(26.0).view(26, 1), torch.arange(26))


@pytest.mark.parametrize("data", [DATA, DataLoader(DATA, 4)])
@pytest.mark.parametrize("drop_last", [True, False])
def test_they_are_those_of_the_batches_without_the_data(data: Any, drop_last: bool) -> None:
    batches = Batches(data, groups=2, batch_size=4, seed=5, drop_last=drop_last)
    found = batches.numbers.apart()
    assert found is not None
    assert found.kept is None
    assert b"TensorDataset" not in pickle.dumps(found)
    for batch in (0, 3, 2, 7):
        for group in (0, 1):
            assert torch.equal(found.indices(group, batch), batches.indices(group, batch))
            assert torch.equal(DATA.tensors[0][found.indices(group, batch)], batches.inputs(group, batch)[0])


def test_they_travel_without_an_order_that_was_drawn() -> None:
    numbers = Batches(DATA, groups=1, batch_size=4).numbers
    found = pickle.loads(pickle.dumps(numbers))
    assert numbers.kept is not None
    assert found.kept is None
    assert torch.equal(found.indices(0, 9), numbers.indices(0, 9))


def test_a_sampler_may_hold_the_data_so_that_they_stay_with_it() -> None:
    loader = DataLoader(DATA, 4, sampler=RandomSampler(DATA, num_samples=12))
    assert Batches(loader, groups=1, batch_size=4).numbers.apart() is None


def test_those_of_a_stream_are_counted() -> None:
    stream = Stream(iter(()), groups=2, batch_size=4, micro_batches=2)  # type: ignore[arg-type]
    found = stream.numbers.apart()
    assert found.indices(1, 5).tolist() == stream.indices(1, 5).tolist() == [22, 23]


def test_there_are_no_others() -> None:
    numbers = Batches(DATA, groups=2, batch_size=4).numbers
    for group, batch in ((2, 0), (-1, 0), (0, -1)):
        with pytest.raises(ConfigError, match=rf"no batch {batch} of group {group} among 2 groups"):
            numbers.indices(group, batch)
