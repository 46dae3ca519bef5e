"""What is measured of a model's outputs over the test data, beside the loss: metrics by the names that users give them.

Does not know: models, test data, where what is measured goes.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stalegrid.errors import TrainingError
from stalegrid.objects import renewed, tensors_in


@runtime_checkable
class Metric(Protocol):
    """What sums up slice by slice, as the metrics of torchmetrics do."""

    def reset(self) -> object:
        """Forget all that was seen."""

    def update(self, *seen: Any) -> object:
        """Take what a loss takes of a slice: the outputs, then the targets."""

    def compute(self) -> Any:
        """Return one number of all slices since the reset."""


Measure = Metric | Callable[..., Any]
"""A metric, or a function of outputs and targets whose number of each slice is averaged over the samples."""

PREFIX = "test_"
"""Of a metric's name in records."""


class Average:
    """A function of outputs and targets, averaged over the samples.

    Args:
        function: (outputs, targets) -> a number averaged over the samples of a slice.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.reset()

    def reset(self) -> None:
        """Forget all that was seen."""
        self._samples, self._total = 0, 0.0

    def update(self, *seen: Any) -> None:
        """Add the number of a slice, as often as it has samples."""
        # Those of the targets, which come last.
        samples = len((*tensors_in(seen[-1]), *tensors_in(seen))[0])
        self._total += _number(self._function(*seen)) * samples
        self._samples += samples

    def compute(self) -> float:
        """Return the mean over the samples."""
        return self._total / self._samples


class Metrics:
    """Copies of a run's metrics, which leave no trace in the user's own.

    Args:
        asked: by name.
        device: of the outputs.

    Raises:
        TrainingError: by every method, a metric fails, gives no number, or changes what it is shown.
    """

    def __init__(self, asked: Mapping[str, Measure], device: torch.device) -> None:
        own = renewed(tuple(asked.values()))
        self._metrics = {name: _prepared(one, device) for name, one in zip(asked, own, strict=True)}

    def reset(self) -> None:
        """Begin an evaluation."""
        for name, metric in self._metrics.items():
            with _named(name):
                metric.reset()

    def update(self, outputs: Sequence[Any], targets: Any) -> None:
        """Take a slice.

        Args:
            outputs: that a loss is called with.
            targets: of the slice.
        """
        shown = tensors_in((tuple(outputs), targets))
        for name, metric in self._metrics.items():
            before = [tensor._version for tensor in shown]
            with _named(name):
                metric.update(*outputs, targets)
                # The metrics after it, and whoever holds the test data in memory, would see that.
                if before != [tensor._version for tensor in shown]:
                    raise ValueError("it changes outputs or targets in place; let it work on copies")

    def compute(self) -> dict[str, float | None]:
        """Return a number of each metric over all slices, by its name in records; None for NaN."""
        found: dict[str, float | None] = {}
        for name, metric in self._metrics.items():
            with _named(name):
                value = _number(metric.compute())
                found[PREFIX + name] = None if math.isnan(value) else value
        return found


def _prepared(asked: Measure, device: torch.device) -> Metric:
    if isinstance(asked, nn.Module):
        asked = asked.to(device)
        for part in asked.modules():
            # Else a metric of torchmetrics would gather from processes that train, and wait for ever.
            if hasattr(part, "distributed_available_fn"):
                vars(part)["distributed_available_fn"] = _alone
    return asked if isinstance(asked, Metric) and not isinstance(asked, type) else Average(asked)


def _alone() -> bool:
    return False


@contextmanager
def _named(name: str) -> Iterator[None]:
    try:
        yield
    except Exception as problem:  # a metric is the user's: anything can be raised
        said = " ".join(f"{type(problem).__name__}: {problem}".split())
        raise TrainingError(f"a metric fails (metric: {name}): {said}") from problem


def _number(value: Any) -> float:
    if (isinstance(value, Tensor) and value.numel() == 1) or getattr(value, "size", None) == 1:
        value = value.item()
    if not isinstance(value, int | float):
        shown = tuple(value.shape) if hasattr(value, "shape") else type(value).__name__
        raise TypeError(f"it gives no single real number (it gives: {shown})")
    return float(value)
