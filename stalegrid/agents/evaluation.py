"""What is measured of a model: sums over the slices of test data, and metrics.

Does not know: who computes the model's outputs, whose model it is.
"""

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, Protocol

from torch import Tensor

from stalegrid.errors import TrainingError
from stalegrid.objects import Form, LossFunction, labels, losses
from stalegrid.observe import Metrics, Record, count_correct


class TestSet(Protocol):
    """Test data in fixed slices."""

    @property
    def form(self) -> Form:
        """How the arguments of the model are made of the inputs."""

    def __len__(self) -> int:
        """Return the number of slices."""

    def inputs(self, number: int) -> tuple[Tensor, ...]:
        """Return the inputs of a slice."""

    def targets(self, number: int) -> Any:
        """Return its targets."""

    def indices(self, number: int) -> Tensor:
        """Return which samples they are."""


class Evaluation:
    """The measurement of one version after another.

    Args:
        test: data; None for none, where there is nothing to measure.
        loss: (outputs, targets) -> mean over the samples, or sum and count.
        metrics: beside loss and accuracy.

    Attributes:
        loss: likewise.
        metrics: likewise.
    """

    def __init__(self, test: TestSet | None, loss: LossFunction, metrics: Metrics) -> None:
        self._test = test
        self.loss = loss
        self.metrics = metrics
        self._sums = [0.0, 0.0, 0.0, 0.0]

    def begin(self) -> None:
        """Begin the measurement of a version."""
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self.metrics.reset()

    def add(self, chunk: int, outputs: tuple[Any, ...], targets: Any) -> None:
        """Measure what a model makes of a slice.

        Args:
            chunk: which.
            outputs: of the model.
            targets: of the slice.
        """
        self.take(self.of(chunk, outputs, targets))

    def of(self, chunk: int, outputs: tuple[Any, ...], targets: Any) -> tuple[float, float, float, float]:
        """Return what a model makes of a slice, see :meth:`sums`, and add nothing."""
        total, counted = self._measured(chunk, outputs, targets)
        return self._size(chunk), total, float(count_correct(outputs[0], targets)), counted

    def take(self, values: Sequence[float]) -> None:
        """Add what was made of a slice."""
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)]

    def note(self, outputs: tuple[Any, ...], targets: Any) -> None:
        """Show metrics what a model makes of a slice, in no lower precision."""
        self.metrics.update(outputs, targets)

    def sums(self) -> list[float]:
        """Return samples, their losses, how many are correct, and what losses count, over all slices so far."""
        return self._sums

    def _size(self, chunk: int) -> int:
        assert self._test is not None
        return len(self._test.indices(chunk))

    def _measured(self, chunk: int, outputs: tuple[Any, ...], targets: Any) -> tuple[float, float]:
        """Return the loss of a slice, summed, and what it is summed over: its samples where the loss is a mean."""
        assert self._test is not None
        samples = partial(self._test.indices, chunk)
        with labels.named(outputs[0], targets, samples, self.loss):
            loss, count = losses.parted(self.loss(*outputs, targets))
        if count is None:
            return float(loss) * self._size(chunk), float(self._size(chunk))
        return float(loss), float(count)


def measured(sums: Sequence[float], metrics: Mapping[str, float | None]) -> Record:
    """Return what a record says of a measurement.

    Args:
        sums: see :meth:`Evaluation.sums`.
        metrics: by name.

    Raises:
        TrainingError: the loss counts nothing.
    """
    samples, loss, correct, counted = sums
    if not counted:
        raise TrainingError("nothing is counted in the loss of the test data (count: 0); leave the data out")
    accuracy = None if math.isnan(correct) else correct / samples
    return {"test_loss": loss / counted, "test_accuracy": accuracy, **metrics}
