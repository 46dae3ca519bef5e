"""What is measured beside the loss: sums over slices, copies, and what is refused."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import TrainingError
from stalegrid.observe.metrics import Metrics

CPU = torch.device("cpu")
SLICES = [(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([1.0, 1.0, 1.0])), (torch.tensor([8.0]), torch.tensor([0.0]))]


def gap(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).abs().mean()


class Largest:
    """A metric that sums up by itself."""

    def __init__(self) -> None:
        self.seen = [99.0]

    def reset(self) -> None:
        self.seen = []

    def update(self, outputs: Tensor, targets: Tensor) -> None:
        self.seen.append(float(outputs.max()))

    def compute(self) -> float:
        return max(self.seen)


def measured(**asked: Any) -> dict[str, float | None]:
    metrics = Metrics(asked, CPU)
    metrics.reset()
    for outputs, targets in SLICES:
        metrics.update((outputs,), targets)
    return metrics.compute()


def test_a_function_is_averaged_over_samples_and_not_over_slices() -> None:
    assert measured(gap=gap, one=lambda outputs, targets: 1) == {"test_gap": (0 + 1 + 2 + 8) / 4, "test_one": 1.0}


def test_a_metric_sums_up_by_itself_and_begins_anew_with_every_evaluation() -> None:
    mine = Largest()
    metrics = Metrics({"largest": mine}, CPU)
    for outputs, targets in SLICES:
        metrics.reset()
        metrics.update((outputs,), targets)
        assert metrics.compute() == {"test_largest": float(outputs.max())}
    assert mine.seen == [99.0]  # a copy was used


def test_a_metric_of_torchmetrics_is_one() -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    assert measured(error=torchmetrics.MeanAbsoluteError()) == {"test_error": 2.75}


def test_all_outputs_of_a_tuple_are_given_as_to_a_loss_and_targets_may_be_a_tree() -> None:
    metrics = Metrics({"sum": lambda a, b, targets: (a + b + targets["y"]).mean()}, CPU)
    metrics.reset()
    metrics.update((torch.ones(2), torch.ones(2)), {"y": torch.tensor([1.0, 2.0])})
    assert metrics.compute() == {"test_sum": 3.5}


def test_nan_is_no_number_that_is_told() -> None:
    assert measured(hole=lambda outputs, targets: float("nan")) == {"test_hole": None}


@pytest.mark.parametrize("value", [torch.ones(2), "much", None, {"a": 1.0}, torch.tensor(1j)])
def test_what_gives_no_single_number_is_named(value: Any) -> None:
    with pytest.raises(TrainingError, match=r"fails \(metric: odd\): TypeError: it gives no single real number"):
        measured(gap=gap, odd=lambda outputs, targets: value)


def test_what_fails_is_named() -> None:
    def fail(outputs: Tensor, targets: Tensor) -> float:
        raise KeyError("no such column")

    with pytest.raises(TrainingError, match=r"a metric fails \(metric: mine\): KeyError: 'no such column'"):
        measured(mine=fail)


def test_what_changes_outputs_in_place_is_refused_before_others_see_that() -> None:
    metrics = Metrics({"rash": lambda outputs, targets: outputs.mul_(0).sum()}, CPU)
    with pytest.raises(TrainingError, match=r"metric: rash\).*changes outputs or targets in place"):
        metrics.update((torch.ones(2),), torch.ones(2))


def test_a_module_that_is_a_loss_is_a_function() -> None:
    assert measured(l1=nn.L1Loss()) == measured(l1=gap)
