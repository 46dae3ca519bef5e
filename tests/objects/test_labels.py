"""Which sample a loss that fails at a label is blamed on."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.errors import DataError, SampleError, StalegridError
from stalegrid.objects.labels import named


def fail(outputs: Tensor, targets: Tensor) -> None:
    samples = torch.tensor([40, 41, 42])
    with named(outputs, targets, lambda: samples, None):
        F.cross_entropy(outputs, targets)


def test_the_first_label_that_is_no_class_is_named() -> None:
    with pytest.raises(DataError, match=r"\(sample: 41, label: 7, classes: 3\)"):
        fail(torch.zeros(3, 3), torch.tensor([0, 7, -1]))
    with pytest.raises(DataError, match=r"\(sample: 42, label: -1, classes: 3\)"):
        fail(torch.zeros(3, 3, 2), torch.tensor([[0, 1], [2, -100], [0, -1]]))


def test_other_failures_stay_what_they_are() -> None:
    fail(torch.zeros(3, 3), torch.tensor([0, 1, -100]))
    with (
        pytest.raises(ZeroDivisionError),
        named(torch.zeros(3, 3), torch.tensor([0, 1, 2]), lambda: torch.arange(3), None),
    ):
        _ = 1 / 0
    with pytest.raises(ZeroDivisionError), named(torch.zeros(3), torch.tensor([9.0]), lambda: torch.arange(3), None):
        _ = 1 / 0


def test_the_losss_own_ignored_label_is_not_blamed() -> None:
    loss = nn.CrossEntropyLoss(ignore_index=255)
    with (
        pytest.raises(DataError, match=r"\(sample: 1, label: 300, classes: 3\)"),
        named(torch.zeros(2, 3), torch.tensor([255, 300]), lambda: torch.arange(2), loss),
    ):
        loss(torch.zeros(2, 3), torch.tensor([255, 300]))
    with pytest.raises(ZeroDivisionError), named(torch.zeros(1, 3), torch.tensor([255]), lambda: torch.arange(1), loss):
        _ = 1 / 0
    with (
        pytest.raises(DataError, match=r"label: -100"),
        named(torch.zeros(1, 3), torch.tensor([-100]), lambda: torch.arange(1), loss),
    ):
        loss(torch.zeros(1, 3), torch.tensor([-100]))


WAYS: tuple[dict[str, Any], ...] = (
    {"method": "sgd"},
    {"method": "pipedream", "grid": stalegrid.GridSettings(groups=1, stages=2, cuts=["1"])},
    {"method": "asgd", "learners": 2},
)


@pytest.mark.parametrize("settings", WAYS)
@pytest.mark.parametrize("wrong", ["first batch", "later", "test"])
def test_a_label_out_of_range_names_the_sample_of_the_data_set(
    wrong: str, settings: dict[str, Any], tmp_path: Path
) -> None:
    x, y = torch.randn(64, 4, generator=torch.Generator().manual_seed(0)), torch.arange(64) % 3
    data, test, out = TensorDataset(x, y.clone()), TensorDataset(x, y.clone()), tmp_path / "run"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 3))
    learners = settings.get("learners", 1)
    batches = stalegrid.data.Batches(data, groups=learners, batch_size=8, seed=0)
    last = batches.updates_per_epoch - 1
    sample = {"first batch": int(batches.indices(0, 0)[3]), "later": int(batches.indices(0, last)[3]), "test": 5}[wrong]
    (test if wrong == "test" else data).tensors[1][sample] = 9
    error = SampleError if wrong == "later" else stalegrid.ConfigError
    with pytest.raises(error, match=rf"\(sample: {sample}, label: 9, classes: 3\)"):
        stalegrid.train(
            model,
            data,
            test=test,
            loss=nn.CrossEntropyLoss(),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            batch_size=8,
            epochs=2,
            engine="simulator",
            quiet=True,
            out=out,
            **settings,
        )
    assert out.exists() == (wrong == "later")


@pytest.mark.parametrize("wrong", ["later", "test"])
def test_a_run_blames_no_label_that_its_loss_ignores(wrong: str) -> None:
    x, y = torch.randn(32, 4, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3
    data, test = TensorDataset(x, y.clone()), TensorDataset(x, y.clone())
    last = stalegrid.data.Batches(data, groups=1, batch_size=8, seed=0).indices(0, 3)
    one, other = (5, 9) if wrong == "test" else map(int, last[:2])
    (test if wrong == "test" else data).tensors[1][[one, other]] = torch.tensor([255, 300])
    with pytest.raises(StalegridError, match=rf"\(sample: {other}, label: 300, classes: 3\)"):
        stalegrid.train(
            nn.Linear(4, 3),
            data,
            test=test,
            loss=nn.CrossEntropyLoss(ignore_index=255),
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.1),
            batch_size=8,
            method="sgd",
            engine="simulator",
            quiet=True,
        )
