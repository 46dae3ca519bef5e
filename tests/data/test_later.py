"""A data set that is opened where somebody reads it."""

import pickle
import random
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, TensorDataset

from stalegrid.data import Batches, Later, inside, opened, reading_of
from stalegrid.errors import ConfigError

DATA = TensorDataset(torch.arange(6.0).view(6, 1), torch.arange(6))


class Made:
    def __init__(self) -> None:
        self.times = 0

    def __call__(self) -> Dataset[Any]:
        self.times += 1
        return DATA


def test_it_is_opened_once_and_once_more_after_it_was_let_go() -> None:
    made = Made()
    later = Later(made)
    assert (made.times, later.there, inside(later)) == (0, None, [])
    assert opened(later) is opened(later) is later.there is DATA
    assert made.times == 1
    later.let_go()
    assert later.there is None
    assert opened(later) is DATA
    assert made.times == 2


def test_what_is_there_is_not_made() -> None:
    made = Made()
    assert Later(made, DATA).get() is Later.of(DATA).get() is DATA
    assert made.times == 0
    later = Later.of(DATA)
    assert Later.of(later) is later


def test_other_data_and_none_are_open_as_they_are() -> None:
    assert opened(DATA) is DATA
    assert opened(None) is None
    reading = reading_of(DATA)
    assert inside(reading) == inside(Later.of(reading)) == [reading, DATA]
    assert inside(DATA) == [DATA]
    assert inside(None) == []


def test_whoever_opens_it_draws_the_same_and_nobody_else_draws_otherwise_for_it() -> None:
    drawn: list[Any] = []

    def make() -> Dataset[Any]:
        drawn.append((torch.rand(()).item(), np.random.rand(), random.random()))
        return DATA

    states = [torch.get_rng_state(), np.random.get_state()[1], random.getstate()]
    Later(make).get()
    torch.rand(3)
    Later(make).get()
    assert drawn[0] == drawn[1]
    torch.set_rng_state(states[0])
    assert np.array_equal(states[1], np.random.get_state()[1])  # type: ignore[arg-type]
    assert states[2] == random.getstate()


def test_elsewhere_it_is_what_it_stands_for() -> None:
    again = pickle.loads(pickle.dumps(Later.of(DATA)))
    assert torch.equal(again.get().tensors[0], DATA.tensors[0])


def test_whoever_takes_it_for_a_data_set_is_told() -> None:
    with pytest.raises(ConfigError, match="Later is not a map-style data set"):
        Batches(Later.of(DATA), groups=1, batch_size=2)
