"""Sequences are padded to one of a few lengths, with what is asked for."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stalegrid.data import pad_to
from stalegrid.errors import ConfigError, DataError


def ones(*shape: int) -> Tensor:
    return torch.ones(*shape, dtype=torch.int64)


@pytest.mark.parametrize(("longest", "length"), [(0, 4), (3, 4), (4, 4), (5, 8), (8, 8)])
def test_a_batch_has_the_least_length_that_its_sequences_fit_in(longest: int, length: int) -> None:
    x, y = pad_to([8, 4])([(ones(longest), 1), (ones(min(2, longest)), 2)])
    assert x.shape == (2, length)
    assert x[0].tolist() == [1] * longest + [0] * (length - longest)
    assert x[1].tolist() == [1] * min(2, longest) + [0] * (length - min(2, longest))
    assert torch.equal(y, torch.tensor([1, 2]))


def test_what_pads_is_said_for_each_part() -> None:
    items: list[dict[str, Any]] = [
        {"ids": [5, 6, 7], "labels": np.array([1, 2, 3]), "bag": ones(2), "weight": 0.5},
        {"ids": [8], "labels": np.array([4]), "bag": ones(2), "weight": 0.25},
    ]
    made = pad_to([2, 4], {"ids": 0, "labels": -100, "bag": None, "weight": None})(items)
    assert made["ids"].tolist() == [[5, 6, 7, 0], [8, 0, 0, 0]]
    assert made["labels"].tolist() == [[1, 2, 3, -100], [4, -100, -100, -100]]
    assert made["bag"].shape == (2, 2)
    assert made["weight"].tolist() == [0.5, 0.25]


def test_all_sequences_of_a_batch_have_one_length_and_keep_their_types_and_other_sizes() -> None:
    x, y = pad_to([2, 4], (0.5, 7))(
        [(torch.zeros(1, 3, dtype=torch.float64), ones(3)), (torch.zeros(2, 3).double(), ones(1))]
    )
    assert (x.shape, x.dtype, y.shape, y.dtype) == ((2, 4, 3), torch.float64, (2, 4), torch.int64)
    assert x[0, 1:].eq(0.5).all()
    assert y[1].tolist() == [1, 7, 7, 7]


def test_a_batch_of_each_length_is_made_of_any_items() -> None:
    made = list(pad_to([2, 4, 8]).of_each_shape([(ones(3), 1), (ones(5), 2)]))
    assert [x.shape for x, _ in made] == [(2, 2), (2, 4), (2, 8)]
    assert [x[1].tolist() for x, _ in made] == [[1, 1], [1] * 4, [1] * 5 + [0] * 3]
    assert all(y.tolist() == [1, 2] for _, y in made)


def test_lengths_that_there_are_none_of_and_sequences_that_fit_in_none_are_refused() -> None:
    for lengths in ([], [4, 0]):
        with pytest.raises(ConfigError, match=r"no lengths to pad to \(lengths: \[.*\]\); name some"):
            pad_to(lengths)
    with pytest.raises(
        DataError, match=r"longer than all lengths to pad to \(length: 9, lengths: 4, 8\); add a length"
    ):
        pad_to([8, 4])([(ones(9), 1)])


def test_lists_that_nobody_has_said_to_be_sequences_are_refused_with_the_remedy() -> None:
    items = [{"ids": [1, 2, 3]}, {"ids": [4]}]
    with pytest.raises(DataError, match=r"make every sequence a tensor, or name what pads each \(value\)"):
        pad_to([4])(items)
    assert pad_to([4], {"ids": 0})(items)["ids"].tolist() == [[1, 2, 3, 0], [4, 0, 0, 0]]
