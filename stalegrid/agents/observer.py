"""The agent outside the grid: reads reports, averages snapshots over replicas, and measures the model.

Does not know: engines, clocks, files; it hands records and models to a sink.

An agent with a program of its own, so "the model at version n" (every stage after exactly n updates) is measured
without draining a pipeline, and no unit ever waits for a file or a console.  If it measures more slowly than units
train, snapshots wait in the memory of its process.
"""

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stalegrid.consensus import weighed
from stalegrid.errors import NonFiniteLoss, TrainingError
from stalegrid.objects import Form, LossFunction, Memory, State, call, labels, losses, mapped, spread
from stalegrid.observe import Metrics, Record, Sink, count_correct
from stalegrid.programs import Action, Kind, Message, Unit
from stalegrid.stages import Precision, StageLayout


class TestSet(Protocol):
    """Test data in fixed slices."""

    @property
    def form(self) -> Form:
        """How the arguments of the model are made of the inputs."""

    def __len__(self) -> int:
        """Return the number of slices."""

    def __getitem__(self, index: int) -> tuple[tuple[Tensor, ...], Any]:
        """Return inputs and targets of a slice."""

    def indices(self, number: int) -> Tensor:
        """Return which samples they are."""


class Observer:
    """Executes the observer's actions.

    Args:
        owners: for each part of the parameters, a stage or a shard, the units that have a replica of it.
        layouts: per part.
        summarise: reports by unit -> what a record says of them.
        model: a plain copy of the user's model, which takes the mean parameters.
        loss: (outputs, targets) -> mean over the samples, or sum and count.
        test: test data; None for none.
        metrics: of it, beside loss and accuracy.
        epochs: version -> passes over the data that were trained.
        sink: where observations go.
        averaged: told of the model that has taken a mean over replicas; None where there is one replica.
        precision: what model and loss compute in, as they do in training; metrics do not.
        weights: of the replicas of a part in their mean, in the order of their owners; alike if left out.
    """

    def __init__(
        self,
        owners: Sequence[Sequence[Unit]],
        layouts: Sequence[StageLayout],
        summarise: Callable[[Mapping[Unit, Tensor]], Record],
        model: nn.Module,
        loss: LossFunction,
        test: TestSet | None,
        metrics: Metrics,
        epochs: Callable[[int], float],
        sink: Sink,
        averaged: Callable[[nn.Module], object] | None = None,
        precision: Precision = Precision(),  # noqa: B008 - it has no state
        weights: Sequence[float] | None = None,
    ) -> None:
        self._weights = [1.0] * len(owners[0]) if weights is None else weights
        self._owners = owners
        self._layouts = layouts
        self._summarise = summarise
        self._model = model.eval()
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._loss = loss
        self._test = test
        self._metrics = metrics
        self._epochs = epochs
        self._sink = sink
        self._averaged = averaged
        self._precision = precision
        self._record: Record = {}
        self._unlike: set[str] = set()  # buffers of whole numbers that replicas do not share
        # Samples, loss, correct, and what the loss counts, of the evaluation under way.
        self._sums = [0.0, 0.0, 0.0, 0.0]

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is Kind.REPORT:
            self._sink.report(self._report(action.index, inbox))
        elif action.kind is Kind.COLLECT:
            self._collect(action.index, inbox)
        elif action.kind is Kind.EVALUATE:
            self._evaluate(action.index)
        elif action.kind is Kind.JUDGE:
            stop = torch.tensor([self._sink.stops()], dtype=torch.uint8)
            return [Message(tag, action.index, (stop,)) for tag in action.sends]
        return []

    def remember(self) -> None:
        """Look at the objects of the observer; see :class:`stalegrid.agents.Agent`."""
        things = {"model": self._model, "loss": self._loss, "metrics": self._metrics}
        self._objects = Memory(things, [*self._model.parameters(), *self._model.buffers()])

    def state_dict(self) -> State:
        """Return what was told once, and what the sink has; a run is saved when nothing is being measured."""
        return {"unlike": self._unlike, "sink": self._sink.state_dict(), "objects": self._objects.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._unlike = state["unlike"]
        self._sink.load_state_dict(state["sink"])
        self._objects.load_state_dict(state["objects"])

    def _report(self, update: int, inbox: Sequence[Message]) -> Record:
        found = self._summarise({m.tag.edge.source: m.tensors[0] for m in inbox})
        return {"update": update + 1, "epoch": self._epochs(update + 1), **found}

    @torch.no_grad()
    def _collect(self, version: int, inbox: Sequence[Message]) -> None:
        vectors = {m.tag.edge.source: m.tensors[0].to(self._device) for m in inbox}
        counters = {m.tag.edge.source: m.tensors[1] for m in inbox}
        self._sink.units(vectors)
        pairs = zip(self._owners, self._layouts, strict=True)
        means = [_mean([vectors[unit] for unit in units], layout, self._weights) for units, layout in pairs]
        state = _tensors(self._model)
        for units, layout, mean in zip(self._owners, self._layouts, means, strict=True):
            for entry in layout.entries:
                state[entry.name].copy_(entry.view(mean))
            self._warn_of_unlike(layout, [counters[unit] for unit in units])
            for name, value in _counters(layout, counters[units[0]]).items():
                state[name].copy_(value)
        # What has no mean, as the vectors of spectral normalisation, is made anew for the mean of the weights.
        if self._averaged is not None:
            self._averaged(self._model)
        distance = self._distance(vectors, means)
        self._record = {
            "version": version,
            "epoch": self._epochs(version),
            "consensus_distance": distance,
        }
        self._sums = [0.0, 0.0, 0.0, 0.0]
        self._metrics.reset()
        if self._test is None:
            self._hand_over()

    def _measured(self, chunk: int, outputs: tuple[Any, ...], targets: Any) -> tuple[float, float]:
        """Return the loss of a slice, summed, and what it is summed over: its samples where the loss is a mean."""
        assert self._test is not None
        samples = partial(self._test.indices, chunk)
        with labels.named(outputs[0], targets, samples, self._loss):
            loss, count = losses.parted(self._loss(*outputs, targets))
        if count is None:
            return float(loss) * len(samples()), float(len(samples()))
        return float(loss), float(count)

    def _warn_of_unlike(self, layout: StageLayout, counters: Sequence[Tensor]) -> None:
        """Say once of each buffer of whole numbers that replicas have unlike ones, which have no mean."""
        first, *others = (_counters(layout, vector) for vector in counters)
        for name, value in first.items():
            if name not in self._unlike and not all(torch.equal(value, other[name]) for other in others):
                self._unlike.add(name)
                warnings.warn(
                    f"groups have unlike values of a buffer of whole numbers (buffer: {name}), which are not mixed; "
                    "the measured and saved model has those of the first group",
                    stacklevel=1,
                )

    def _distance(self, vectors: Mapping[Unit, Tensor], means: Sequence[Tensor]) -> float:
        """Return sqrt(mean over replicas of ||w_s - w_mean||^2), over parameters, weighed as the mean is."""
        # In double precision: differences of nearly equal replicas, summed over all parameters.
        square = 0.0
        for units, layout, mean in zip(self._owners, self._layouts, means, strict=True):
            for unit, weight in zip(units, self._weights, strict=True):
                gap = vectors[unit][: layout.trained].double() - mean[: layout.trained].double()
                square += weight * float(gap.square().sum())
        return math.sqrt(square / sum(self._weights))

    @torch.no_grad()
    def _evaluate(self, chunk: int) -> None:
        assert self._test is not None
        inputs, targets = mapped(lambda x: x.to(self._device), self._test[chunk])
        with self._precision.on(self._device):
            outputs = spread(call(self._model, self._test.form, inputs))
            total, counted = self._measured(chunk, outputs, targets)
        size = len(self._test.indices(chunk))
        values = (size, total, float(count_correct(outputs[0], targets)), counted)
        self._sums = [a + b for a, b in zip(self._sums, values, strict=True)]
        self._metrics.update(outputs, targets)
        # Slice by slice, so that units in the same process have their turns in between.
        if chunk + 1 == len(self._test):
            samples, loss, correct, counted = self._sums
            if not counted:
                raise TrainingError("nothing is counted in the loss of the test data (count: 0); leave the data out")
            accuracy = None if math.isnan(correct) else correct / samples
            self._record |= {"test_loss": loss / counted, "test_accuracy": accuracy}
            self._record |= self._metrics.compute()
            self._hand_over()

    def _hand_over(self) -> None:
        """Hand on what was measured, and end the run if the model that was measured is none any more.

        Raises:
            NonFiniteLoss: a parameter that is trained is infinite or not a number.
        """
        # First what was measured, which shows how the run went wrong.
        self._sink.evaluation(self._record, self._model)
        for name, parameter in self._model.named_parameters():
            if parameter.requires_grad and not parameter.isfinite().all():
                raise NonFiniteLoss(
                    f"the mean model is not finite (parameter: {name}, version: {self._record['version']}); lower the "
                    "learning rate or the staleness, or clip the gradients"
                )


def _mean(replicas: Sequence[Tensor], layout: StageLayout, weights: Sequence[float]) -> Tensor:
    """Return the mean; a tensor that all replicas have alike stays as it is, which the sum of three would round."""
    first, *others = replicas
    total = first * weights[0]
    for vector, weight in zip(others, weights[1:], strict=True):
        total += weighed(vector, weight)
    total.div_(sum(weights))
    for entry in layout.entries:
        own = entry.view(first)
        if all(torch.equal(entry.view(vector), own) for vector in others):
            entry.view(total).copy_(own)
    return total


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    """Return parameters and buffers by every name they have, those that are not saved included."""
    parameters = model.named_parameters(remove_duplicate=False)
    return {**dict(parameters), **dict(model.named_buffers(remove_duplicate=False))}


def _counters(layout: StageLayout, vector: Tensor) -> dict[str, Tensor]:
    """Return the buffers of whole numbers, by name."""
    parts = torch.split(vector, [torch.Size(shape).numel() for _, shape in layout.counters])
    return {name: part.view(shape) for (name, shape), part in zip(layout.counters, parts, strict=True)}
