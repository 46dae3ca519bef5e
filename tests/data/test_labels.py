"""Where labels are read, and where nobody believes them."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Dataset, Subset, TensorDataset

from stalegrid.data import ArrayDataset
from stalegrid.data.labels import labels_of
from stalegrid.data.text import Text
from stalegrid.errors import ConfigError, DataError

LABELS = [3, 0, 1, 1, 2, 0, 3, 1]
PLAIN = TensorDataset(torch.randn(8, 2), torch.tensor(LABELS))


class Named(Dataset[Any]):
    """A data set with labels in an attribute, and what it makes of them in its items."""

    def __init__(self, labels: Any, name: str = "targets", add: int = 0, item: Any = None) -> None:
        setattr(self, name, labels)
        self.add, self.item = add, item

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> Any:
        label = LABELS[index] + self.add
        return self.item(label) if self.item else (torch.rand(2), label)


@pytest.mark.parametrize(
    "data",
    [
        PLAIN,
        ArrayDataset(torch.randn(8, 2), torch.tensor(LABELS), 4),
        Named(LABELS),
        Named(torch.tensor(LABELS, dtype=torch.uint8)),
        Named(np.array(LABELS), name="labels"),
        Named(LABELS, item=lambda label: {"x": torch.zeros(2), "labels": torch.tensor(label)}),
        Named(LABELS, item=lambda label: (torch.zeros(2), np.int64(label))),
        Subset(TensorDataset(torch.randn(9, 2), torch.tensor([7, *LABELS])), range(1, 9)),
        ConcatDataset([Subset(PLAIN, [0, 1, 2]), Subset(PLAIN, [3, 4, 5, 6, 7])]),
    ],
    ids=lambda data: type(data).__name__,
)
def test_they_are_read_where_data_sets_keep_them(data: Any) -> None:
    found = labels_of(data, 8)
    assert found.dtype == torch.int64
    assert found.tolist() == LABELS


def test_nothing_is_drawn_from_anybody() -> None:
    before = torch.get_rng_state()
    labels_of(Named(LABELS), 8)
    assert torch.equal(torch.get_rng_state(), before)


class Bare(Dataset[tuple[Tensor, int]]):
    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        raise AssertionError("read to find labels")


def test_data_without_labels_at_hand_is_refused() -> None:
    for data in (Bare(), TensorDataset(torch.randn(8, 2)), Subset(Bare(), [0])):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"does not have at hand \(data: \w+\); give the data set an attribute"):
            labels_of(data, 8)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (TensorDataset(torch.randn(8, 2), torch.randn(8)), r"labels: float32 \(8,\), samples: 8"),
        (TensorDataset(torch.randn(8, 2), torch.zeros(8, 3, dtype=torch.int64)), r"labels: int64 \(8, 3\)"),
        (Named(LABELS[:-1]), r"labels: int64 \(7,\), samples: 8"),
    ],
)
def test_labels_that_are_not_a_whole_number_a_sample_are_refused(data: Any, shown: str) -> None:
    with pytest.raises(ConfigError, match=shown):
        labels_of(data, 8)


def test_a_text_is_refused() -> None:
    with pytest.raises(ConfigError, match="split even"):
        labels_of(Text(torch.arange(20), "a", 4), 4)


def test_labels_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(ConfigError, match="are no numbers"):
        labels_of(Named(["cat"] * 8), 8)


@pytest.mark.parametrize(
    "data",
    [Named(LABELS, add=1), Named(LABELS, item=lambda label: torch.zeros(1)), Named(LABELS, item=lambda label: {})],
)
def test_labels_that_samples_do_not_have_are_refused(data: Any) -> None:
    with pytest.raises(DataError, match=r"are not those of its samples \(data: Named, sample: 0, .*its label: 3\)"):
        labels_of(data, 8)


def test_an_empty_data_set_has_none() -> None:
    assert labels_of(TensorDataset(torch.randn(0, 2), torch.zeros(0, dtype=torch.int64)), 0).tolist() == []
