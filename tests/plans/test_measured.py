"""Metrics that cannot be measured are refused before anything starts."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from tests.cases import images, make_plan, make_settings, make_task


def planned(metrics: Any = None, best: str | None = None, **task: Any) -> None:
    task = {"test": images(), **task}
    make_plan(make_task(metrics=metrics or {}, **task), make_settings(1, 1, best=best))


class Falling:
    higher_is_better = False

    def reset(self) -> None: ...

    def update(self, *seen: Tensor) -> None: ...

    def compute(self) -> float:
        return 1.0


@pytest.mark.parametrize("name", ["loss", "accuracy", "", "top 5", 3])
def test_a_name_that_records_cannot_have_or_have_already(name: Any) -> None:
    with pytest.raises(ConfigError, match="a metric needs a name of letters"):
        planned({name: Falling()})


def test_a_metric_that_fails_on_the_first_samples() -> None:
    with pytest.raises(ConfigError, match=r"a metric fails \(metric: mine\): .*; it was tried on the first samples"):
        planned({"mine": lambda outputs, targets: outputs[:, 3]})


def test_a_metric_that_gives_no_number_on_the_first_samples() -> None:
    with pytest.raises(ConfigError, match=r"a metric gives NaN.*metric: mine"):
        planned({"mine": lambda outputs, targets: (outputs * torch.inf * 0).sum()})


def test_a_metric_that_looks_at_the_model_which_is_not_the_one_that_is_trained() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))

    def size(outputs: Tensor, targets: Tensor) -> Tensor:
        return model[1].weight.norm()

    with pytest.raises(ConfigError, match="the metric size reads the model"):
        planned({"size": size}, model=model)


@pytest.mark.parametrize(("metrics", "best"), [({"falling": Falling()}, None), (None, "-test_loss")])
def test_without_test_data_nothing_is_measured(metrics: Any, best: str | None) -> None:
    with pytest.raises(ConfigError, match="metrics are measured on test data, and there is none"):
        planned(metrics, best, test=None)


def test_the_best_model_is_told_by_what_is_measured() -> None:
    planned({"falling": Falling()}, "-test_falling")
    planned(None, "test_accuracy")
    with pytest.raises(ConfigError, match=r"asked for: accuracy\); that is: test_loss, test_accuracy, test_falling"):
        planned({"falling": Falling()}, "accuracy")


@pytest.mark.parametrize(("best", "shown"), [("test_loss", "-test_loss"), ("-test_accuracy", "test_accuracy")])
def test_the_wrong_direction_is_refused_where_it_is_known(best: str, shown: str) -> None:
    with pytest.raises(ConfigError, match=f"name it {shown}"):
        planned(None, best)
    with pytest.raises(ConfigError, match="name it -test_falling"):
        planned({"falling": Falling()}, "test_falling")


def test_there_is_no_accuracy_where_targets_are_no_classes() -> None:
    data = torch.utils.data.TensorDataset(torch.randn(50, 4), torch.randn(50, 2))
    regression = {"data": data, "test": data, "model": nn.Linear(4, 2), "loss": nn.MSELoss(), "augment": None}
    planned({"falling": Falling()}, "-test_loss", **regression)
    with pytest.raises(ConfigError, match="that is: test_loss, each with a minus"):
        planned(None, "test_accuracy", **regression)


def test_metrics_are_tried_on_copies() -> None:
    seen: list[float] = []

    def note(outputs: Tensor, targets: Tensor, kept: list[float]) -> float:
        kept.append(1.0)
        return 1.0

    planned({"note": partial(note, kept=seen)})
    assert seen == []
