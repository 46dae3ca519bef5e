"""What a unit reports, as a vector that travels like any other message, and who takes what is made of it.

Does not know: files, clocks.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stalegrid.errors import NonFiniteLoss, SampleError, TrainingError
from stalegrid.objects import State
from stalegrid.observe.weighed import Weighed
from stalegrid.programs import Layout, Unit, flat_layout


@dataclass(slots=True)
class Report:
    """Sums of one unit since its last report.

    Attributes:
        lr: learning rate of the last update, of the first parameter group, as it was applied.
        forwarded: version at which the last batch used was forwarded.
        applied: version that it changed.
        losses: what the losses of the batches used count; each 1 where it is a mean, less of a smaller batch.  None
            except on the last stage.
        samples: of those batches.
        loss_sum: over those batches, of their means or sums, weighed likewise.
        correct: samples whose largest output is the target; NaN where that has no meaning.
        gaps: batches whose gap was measured.
        gap_sum: over those batches, of the L2 norm of how far the parameters moved since the forward.
        gap_max: likewise.
        held: bytes held at most for batches in flight: graphs, inputs, copies of the parameters.
        data: checksum of the samples that were read for the batches used; 0 where none are read.
        histogram: batches used, by staleness in updates from 0 to the bound.
    """

    # All of one type: they travel in one vector.
    lr: float = 0.0
    forwarded: float = 0.0
    applied: float = 0.0
    losses: float = 0.0
    samples: float = 0.0
    loss_sum: float = 0.0
    correct: float = 0.0
    gaps: float = 0.0
    gap_sum: float = 0.0
    gap_max: float = 0.0
    held: float = 0.0
    data: float = 0.0
    histogram: list[float] = field(default_factory=list)

    def vector(self) -> Tensor:
        """Return the numbers, the histogram last, as float64, shape (numbers,)."""
        numbers = [getattr(self, name) for name in _NUMBERS]
        # One vector of one type, as messages of an edge all have the same layout.
        return torch.tensor([*numbers, *self.histogram], dtype=torch.float64)

    @classmethod
    def read(cls, vector: Tensor) -> "Report":
        """Undo :meth:`vector`."""
        values: list[float] = vector.tolist()
        report = cls(histogram=values[len(_NUMBERS) :])
        for name, value in zip(_NUMBERS, values, strict=False):
            setattr(report, name, value)
        return report

    @staticmethod
    def layout(bound: int, told: int = 0) -> Layout:
        """Return what the report of a unit of that bound consists of, with so many numbers of its exchange behind."""
        return flat_layout(len(_NUMBERS) + bound + 1 + told, torch.float64)

    def staleness(self) -> "Record":
        """Return what a record says about the staleness of the unit."""
        batches = sum(self.histogram)
        measured = self.gaps > 0 or not any(self.histogram[1:])  # what is not stale has not moved
        return {
            "mean": sum(tau * count for tau, count in enumerate(self.histogram)) / batches,
            "max": max(tau for tau, count in enumerate(self.histogram) if count),
            "batches": int(batches),
            "histogram": [int(count) for count in self.histogram],
            "forwarded": int(self.forwarded),
            "applied": int(self.applied),
            "gap": self.gap_sum / max(1, self.gaps) if measured else None,
            "gap_max": self.gap_max if measured else None,
            "held": int(self.held),
            "lr": self.lr,
        }


_NUMBERS = tuple(f.name for f in fields(Report) if f.name != "histogram")


def summarise(
    vectors: Mapping[Unit, Tensor], weights: Mapping[int, float] | None = None, tells: Sequence[str] = ()
) -> "Record":
    """Return what a record says of the reports of a grid: losses are those of the last stages.

    Args:
        vectors: of the reports, by unit.
        weights: of what a group's batch counts, by group: its samples, beside those of others; alike if left out.
        tells: names of the numbers of exchanges, which are the last ones of each vector.
    """
    reports = {unit: Report.read(vector[: len(vector) - len(tells)]) for unit, vector in vectors.items()}
    top = max(unit.stage for unit in reports)
    last = {unit.group: report for unit, report in reports.items() if unit.stage == top}
    own = dict.fromkeys(last, 1.0) if weights is None else weights
    _check_data(reports, top)
    samples = sum(r.samples for r in last.values())
    correct = sum(r.correct for r in last.values())
    return {
        "loss": sum(own[s] * r.loss_sum for s, r in last.items()) / sum(own[s] * r.losses for s, r in last.items()),
        "train_accuracy": None if math.isnan(correct) else correct / samples,
        "lr": next(iter(last.values())).lr,
        "samples": int(samples),
        "group_loss": [r.loss_sum / r.losses if r.losses else math.nan for r in last.values()],
        "staleness": {str(unit): report.staleness() for unit, report in reports.items()},
        **({"told": {str(unit): _told(vector, tells) for unit, vector in vectors.items()}} if tells else {}),
    }


def _told(vector: Tensor, tells: Sequence[str]) -> dict[str, float | None]:
    numbers: list[float] = vector[len(vector) - len(tells) :].tolist()
    return {name: None if math.isnan(value) else value for name, value in zip(tells, numbers, strict=True)}


def _check_data(reports: Mapping[Unit, Report], top: int) -> None:
    """Check that the last stages have read the targets of what the first ones have read the inputs of."""
    for unit, report in reports.items():
        if unit.stage == top and report.data != reports[Unit(unit.group, 0)].data:
            raise SampleError(
                f"the first and the last stage have read different samples for the same batches (group: {unit.group}, "
                f"version: {int(report.applied) + 1}): the data changed, or draws by itself; make a sample a function "
                "of its index and of the global generators of torch, NumPy and Python"
            )


@dataclass(frozen=True, slots=True)
class Loss:
    """What the last stage finds out about a batch.

    Args:
        samples: in the batch.
        value: averaged over them, or summed over what counts of them, shape ().
        correct: how many were classified correctly, shape (); NaN where that has no meaning.
        count: what was summed over, shape (); None where the value is a mean.
    """

    samples: int
    value: Tensor
    correct: Tensor
    count: Tensor | None = None

    def plain(self) -> tuple[Any, ...]:
        """Return the values as a tuple."""
        return self.samples, self.value, self.correct, self.count


class Tally:
    """What a unit counts between two reports.

    Losses and gaps are kept as tensors and read at the report, so that a GPU need not be waited for at every batch.

    Args:
        unit: whose.
        bound: staleness in updates that none exceeds.
    """

    def __init__(self, unit: Unit, bound: int) -> None:
        self._unit = unit
        self._bound = bound
        self._losses: list[tuple[int, int, Loss]] = []
        self._divisors: list[tuple[int, Tensor]] = []
        self._gaps: list[Tensor] = []
        self._weighed = Weighed()
        self._report = self._empty()

    def used(self, batch: int, version: int, forwarded: int, loss: Loss | None) -> None:
        """Note that an update at ``version`` uses the gradient of a batch."""
        self._report.histogram[version - forwarded] += 1
        self._report.forwarded, self._report.applied = forwarded, version
        if loss is not None:
            self._losses.append((batch, version, loss))

    def divided(self, version: int, divisor: Tensor) -> None:
        """Note what the gradients of the update at ``version`` were divided by, shape (1,)."""
        self._divisors.append((version, divisor))

    def read(self, checksum: int) -> None:
        """Note what samples were read for a batch that is used; the sum stays exact in a float."""
        # A sum, so that the order in which two stages use batches does not matter.
        self._report.data = (self._report.data + checksum) % 2**52

    def moved(self, gap: Tensor) -> None:
        """Note how far the parameters moved between forward and update, shape ()."""
        self._gaps.append(gap)

    def holding(self, nbytes: int) -> None:
        """Note how much is held now."""
        self._report.held = max(self._report.held, nbytes)

    def check(self) -> None:
        """Read the pending losses, and what gradients were divided by.

        Raises:
            NonFiniteLoss: one is infinite or not a number.
            TrainingError: nothing was counted in an update.
        """
        for version, divisor in self._divisors:
            if not 0 < float(divisor) < math.inf:
                raise TrainingError(
                    f"nothing is counted in the loss of an update (unit: {self._unit}, version: {version}, count: "
                    f"{float(divisor):g}), so its mean is no number; take larger batches, or leave out samples of "
                    "which nothing counts"
                )
        self._divisors.clear()
        for batch, version, loss in self._losses:
            value = float(loss.value)
            if not math.isfinite(value):
                raise NonFiniteLoss(
                    f"the loss is {value} (unit: {self._unit}, batch: {batch}, version: {version}); "
                    "lower the learning rate or the staleness, or clip the gradients"
                )
            mean = loss.count is None
            self._weighed.add(value, 1.0 if loss.count is None else float(loss.count), loss.samples if mean else None)
            self._report.samples += loss.samples
            self._report.correct += float(loss.correct)
        self._losses.clear()

    def close(self, lr: float) -> Report:
        """Return the sums and start anew."""
        self.check()
        done, self._report = self._report, self._empty()
        done.lr = lr
        done.losses, done.loss_sum = self._weighed.total()
        self._weighed = Weighed()
        gaps = [float(gap) for gap in self._gaps]
        done.gaps, done.gap_sum, done.gap_max = len(gaps), sum(gaps), max(gaps, default=0.0)
        self._gaps.clear()
        return done

    def state_dict(self) -> State:
        """Return what was counted since the last report."""
        return {
            "losses": [(batch, version, loss.plain()) for batch, version, loss in self._losses],
            "divisors": self._divisors,
            "gaps": self._gaps,
            "weighed": self._weighed.totals,
            "report": self._report.vector(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._losses = [(batch, version, Loss(*values)) for batch, version, values in state["losses"]]
        self._divisors, self._gaps = state["divisors"], state["gaps"]
        self._weighed = Weighed(state["weighed"])
        self._report = Report.read(state["report"])

    def _empty(self) -> Report:
        return Report(histogram=[0.0] * (self._bound + 1))


def count_correct(output: Any, targets: Any) -> Tensor:
    """Count samples whose largest output is the target; NaN where outputs are not class scores.

    Args:
        output: shape (samples, classes) for class scores; or what has them as ``logits``, as models of transformers do.
        targets: shape (samples,), integer, for classes; or what has them as ``labels``.

    Returns:
        The count, shape ().
    """
    scores, classes = tensor_of(output, "logits"), tensor_of(targets, "labels")
    # A single output is no score of classes.  NaN goes through all sums, so nobody is told half an accuracy.
    if scores is None or classes is None or scores.ndim != 2 or scores.shape[1] < 2 or classes.ndim != 1:
        return torch.tensor(math.nan)
    if classes.is_floating_point() or len(classes) != len(scores):
        return torch.tensor(math.nan)
    return (scores.detach().argmax(dim=1) == classes).sum()


def tensor_of(tree: Any, name: str) -> Tensor | None:
    """Return a tensor, or what a dictionary has under a name."""
    found = tree.get(name) if isinstance(tree, Mapping) else tree
    return found if isinstance(found, Tensor) else None


Record = dict[str, Any]
"""One observation: plain numbers, strings, lists and dictionaries."""

VIRTUAL = "virtual_seconds"
"""The entry of records that were made in virtual time."""

BYTES_SENT, TOTAL = "bytes_sent", "total"
"""The entry of records with the bytes that units have sent each other, by kind of edge, and what it calls their sum."""


class Sink(Protocol):
    """Where observations go."""

    def report(self, record: Record) -> None:
        """Take what units reported of some updates."""

    def evaluation(self, record: Record, model: nn.Module) -> None:
        """Take the measured mean model at a version."""

    def diagnosis(self, record: Record) -> None:
        """Take what was measured of the theory at a version."""

    def units(self, vectors: Mapping[Unit, Tensor]) -> None:
        """Take the parameters and running statistics of every unit at the version that is evaluated next."""

    def stops(self) -> bool:
        """Return whether somebody asks for the end of the run."""

    def state_dict(self) -> State:
        """Return what is needed to take observations of the same run from here on."""

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""

    def finish(self) -> None:
        """Note that the run ended well."""

    def close(self) -> None:
        """Note that the run ended, well or not."""


class Nowhere:
    """The sink of those who observe nothing."""

    def report(self, record: object) -> None:
        """Drop it."""

    def evaluation(self, record: object, model: object) -> None:
        """Drop it."""

    def diagnosis(self, record: object) -> None:
        """Drop it."""

    def units(self, vectors: object) -> None:
        """Drop it."""

    def stops(self) -> bool:
        """Return that nobody asks for the end."""
        return False

    def state_dict(self) -> State:
        """Return that there is nothing to know."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def finish(self) -> None:
        """Do nothing."""

    def close(self) -> None:
        """Do nothing."""
