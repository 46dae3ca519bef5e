"""What a unit reports, as a vector that travels like any other message, and who takes what is made of it.

Does not know: files, clocks.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stalegrid.errors import NonFiniteLoss
from stalegrid.grid import Unit
from stalegrid.messages import Layout, flat_layout


@dataclass(slots=True)
class Report:
    """Sums of one unit since its last report.

    Attributes:
        lr: learning rate of the last update, of the first parameter group.
        backwards: batches used.
        staleness_sum: over those batches, in updates.
        staleness_max: likewise.
        losses: batches used that have a loss: none except on the last stage.
        samples: of those batches.
        loss_sum: over those batches, each averaged over its samples.
        correct: samples whose largest output is the target; NaN where that has no meaning.
    """

    lr: float = 0.0
    backwards: float = 0.0
    staleness_sum: float = 0.0
    staleness_max: float = 0.0
    losses: float = 0.0
    samples: float = 0.0
    loss_sum: float = 0.0
    correct: float = 0.0

    def vector(self) -> Tensor:
        """Return the fields as float64, shape (fields,)."""
        return torch.tensor([getattr(self, f.name) for f in fields(self)], dtype=torch.float64)

    @classmethod
    def read(cls, vector: Tensor) -> "Report":
        """Undo :meth:`vector`."""
        return cls(*vector.tolist())


REPORT_LAYOUT: Layout = flat_layout(len(fields(Report)), torch.float64)


@dataclass(frozen=True, slots=True)
class Loss:
    """What the last stage finds out about a batch.

    Args:
        samples: in the batch.
        value: averaged over them, shape ().
        correct: how many were classified correctly, shape (); NaN where that has no meaning.
    """

    samples: int
    value: Tensor
    correct: Tensor


@dataclass(slots=True)
class Tally:
    """What a unit counts between two reports.

    Losses are kept as tensors and read at the report, so that a GPU need not be waited for at every batch.

    Args:
        unit: whose.
    """

    unit: Unit
    report: Report = field(default_factory=Report)
    pending: list[tuple[int, int, Loss]] = field(default_factory=list)

    def used(self, batch: int, version: int, staleness: int, loss: Loss | None) -> None:
        """Note that an update at ``version`` uses the gradient of a batch."""
        self.report.backwards += 1
        self.report.staleness_sum += staleness
        self.report.staleness_max = max(self.report.staleness_max, staleness)
        if loss is not None:
            self.pending.append((batch, version, loss))

    def check(self) -> None:
        """Read the pending losses.

        Raises:
            NonFiniteLoss: one is infinite or not a number.
        """
        for batch, version, loss in self.pending:
            value = float(loss.value)
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"the loss is {value} (unit: {self.unit}, batch: {batch}, version: {version}); "
                    "lower the learning rate or the staleness, or clip the gradients"
                )
            self.report.losses += 1
            self.report.samples += loss.samples
            self.report.loss_sum += value
            self.report.correct += float(loss.correct)
        self.pending.clear()

    def close(self, lr: float) -> Report:
        """Return the sums and start anew."""
        self.check()
        done, self.report = self.report, Report()
        done.lr = lr
        return done


def count_correct(outputs: Tensor, targets: Tensor) -> Tensor:
    """Count samples whose largest output is the target; NaN where outputs are not class scores.

    Args:
        outputs: shape (samples, classes) for class scores.
        targets: shape (samples,), integer, for classes.

    Returns:
        The count, shape ().
    """
    scores = outputs.ndim == 2 and targets.ndim == 1 and not targets.is_floating_point()
    return (outputs.argmax(dim=1) == targets).sum() if scores else torch.tensor(math.nan)


Record = dict[str, Any]
"""One observation: plain numbers, strings, lists and dictionaries."""


class Sink(Protocol):
    """Where observations go."""

    def report(self, record: Record) -> None:
        """Take what units reported of some updates."""

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Take the measured mean model at a version."""

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Take the parameters and running statistics of every unit at the version that is evaluated next."""
