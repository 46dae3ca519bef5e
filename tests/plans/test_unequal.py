"""What a run tells of targets that the loss ignores."""

import warnings
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.data import Batches, Slices
from stalegrid.plans.unequal import tell_unequal
from tests.cases import build, train

IGNORED = -100


def told(
    targets: Tensor, micro_batches: int = 1, groups: int = 1, loss: Any = None, test: Sequence[int] | None = None
) -> list[str]:
    """Return what is told of data of which every update takes all."""
    data = TensorDataset(torch.zeros(len(targets), 2), targets)
    batches = Batches(data, groups=groups, batch_size=len(targets) // groups, micro_batches=micro_batches)
    slices = None if test is None else Slices(TensorDataset(torch.zeros(len(test), 2), torch.tensor(test)), 4)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        tell_unequal(loss or nn.CrossEntropyLoss(), batches, groups, slices)
    return [str(w.message) for w in caught]


SEQUENCES = torch.tensor([[1, 2, IGNORED], [1, IGNORED, IGNORED], [1, 1, IGNORED], [0, 2, IGNORED]])
EQUAL = torch.tensor([[1, 2, IGNORED]] * 4)


@pytest.mark.parametrize(("micro_batches", "groups"), [(4, 1), (1, 4), (2, 2)])
def test_unequal_numbers_of_targets_are_told_where_they_are_averaged(micro_batches: int, groups: int) -> None:
    (text,) = told(SEQUENCES, micro_batches, groups)
    assert "not equally many" in text
    assert not told(EQUAL, micro_batches, groups)


def test_one_batch_is_its_own_mean() -> None:
    assert not told(SEQUENCES)


def test_the_numbers_are_told() -> None:
    assert "from 1 to 2 in the first update" in told(SEQUENCES, micro_batches=4)[0]


def test_a_batch_in_which_nothing_counts_is_told() -> None:
    texts = told(torch.tensor([[1, 1], [IGNORED, IGNORED]]), micro_batches=2)
    assert [("ignores every target" in text, "not equally many" in text) for text in texts] == [
        (True, False),
        (False, True),
    ]
    assert "ignores every target" in told(torch.full((3, 2), IGNORED))[0]


def test_weights_of_classes_count() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]))
    targets = torch.tensor([0, 1, 2, 2])
    assert "from 1 to 4" in told(targets, micro_batches=4, loss=weighted)[0]
    assert not told(targets, micro_batches=4)
    assert not told(torch.tensor([1, 1, 1, 1]), micro_batches=4, loss=weighted)


def test_a_label_that_is_no_class_is_left_to_the_loss() -> None:
    weighted = nn.CrossEntropyLoss(weight=torch.tensor([1.0, 2.0, 4.0]))
    for wrong in (7, -1):
        assert "from 4 to 8" in told(torch.tensor([2, 2, wrong, 2]), micro_batches=2, loss=weighted)[0]


def test_the_losss_own_index_is_what_counts() -> None:
    assert told(torch.tensor([[0, 1], [1, 1]]), 2, loss=nn.CrossEntropyLoss(ignore_index=0))
    assert told(torch.tensor([[0, 1], [1, 1]]), 2, loss=nn.NLLLoss(ignore_index=0))
    assert not told(SEQUENCES, 4, loss=nn.CrossEntropyLoss(ignore_index=7))


@pytest.mark.parametrize("loss", [nn.MSELoss(), lambda outputs, targets: outputs.sum()])
def test_a_loss_that_ignores_nothing_is_not_told_of(loss: Any) -> None:
    assert not told(SEQUENCES, 4, loss=loss)
    assert not told(SEQUENCES.float(), 4)


def test_an_accuracy_that_takes_ignored_targets_for_wrong_is_told() -> None:
    (text,) = told(torch.tensor([1, IGNORED, 2, 0]))
    assert "the training accuracy counts" in text
    assert "ignored: 1 of the first 4" in text
    (text,) = told(torch.tensor([1, 1, 2, 0]), test=[0, 1, IGNORED, IGNORED])
    assert "the test accuracy counts" in text


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.out = nn.Linear(2, 4), nn.Linear(4, 9)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.embed(x)).unflatten(1, (3, 3))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "gpipe", "groups": 1, "stages": 2, "cuts": ["out"], "micro_batches": 4},
        {"method": "data-parallel", "groups": 4},
        {"method": "hardsync", "learners": 4},
    ],
)
def test_a_run_tells(settings: dict[str, Any]) -> None:
    data = TensorDataset(torch.zeros(4, 2), SEQUENCES)
    size = 4 if "micro_batches" in settings else 1
    usual: dict[str, Any] = {"engine": "simulator", "quiet": True, "updates": 1, "batch_size": size, "seed": 1}
    with pytest.warns(UserWarning, match="not equally many"):
        train(
            build(Tokens),
            data,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            **usual,
            **settings,
        )
