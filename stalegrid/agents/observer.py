"""The observer that has a whole model: it averages snapshots over replicas, and measures the model.

Does not know: engines, clocks, files; it hands records and models to a sink.

If it measures more slowly than units train, snapshots wait in the memory of its process.
"""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from stalegrid.agents.apart import Apart
from stalegrid.agents.evaluation import Evaluation, TestSet, measured
from stalegrid.agents.looks import Diagnosing, Look
from stalegrid.agents.replicas import Unlike, mean, put, squares, unlike
from stalegrid.agents.sent import Sent
from stalegrid.agents.sharing import in_order
from stalegrid.agents.watching import Watching
from stalegrid.objects import LossFunction, Memory, State, by_every_name, call, mapped, spread
from stalegrid.observe import JS_DISTANCE, Metrics, Record, Sink
from stalegrid.programs import Action, Kind, Message, Unit
from stalegrid.stages import Precision, StageLayout


class Observer(Watching):
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
        sent: how much units have sent each other.
        averaged: told of the model that has taken a mean over replicas; None where there is one replica.
        precision: what model and loss compute in, as they do in training; metrics do not.
        weights: of the replicas of a part in their mean, in the order of their owners; alike if left out.
        apart: whether it is measured how far replicas are apart in what they predict.
        diagnosing: makes diagnoses of what units show; None where they show nothing.
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
        sent: Sent,
        averaged: Callable[[nn.Module], object] | None = None,
        precision: Precision = Precision(),  # noqa: B008 - it has no state
        weights: Sequence[float] | None = None,
        apart: bool = False,
        diagnosing: Diagnosing | None = None,
    ) -> None:
        super().__init__(summarise, epochs, sink, sent)
        self._weights = [1.0] * len(owners[0]) if weights is None else weights
        self._owners = owners
        self._layouts = layouts
        self._model = model.eval()
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._evaluation = Evaluation(test, loss, metrics)
        self._test = test
        self._averaged = averaged
        self._precision = precision
        self._apart = Apart(self._model, owners, layouts, self._weights) if apart else None
        self._diagnosing = diagnosing
        self._record: Record = {}
        self._unlike = Unlike()

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is not Kind.DIAGNOSE:
            return super().step(action, inbox)
        assert self._diagnosing is not None
        version = action.index
        found = self._diagnosing.step(version, {m.tag.edge.source: Look.of(m) for m in inbox})
        if found is not None:
            self._sink.diagnosis({"version": version, "epoch": self._epochs(version), **found})
        return []

    def remember(self) -> None:
        """Look at the objects of the observer; see :class:`stalegrid.agents.Agent`."""
        things = {"model": self._model, "loss": self._evaluation.loss, "metrics": self._evaluation.metrics}
        self._objects = Memory(things, [*self._model.parameters(), *self._model.buffers()])

    def state_dict(self) -> State:
        """Return what was told once, and what the sink has; a run is saved when nothing is being measured."""
        return {
            "unlike": self._unlike.told,
            "sink": self._sink.state_dict(),
            "sent": self._sent.state_dict(),
            "objects": self._objects.state_dict(),
            "diagnosing": None if self._diagnosing is None else self._diagnosing.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._unlike.told = state["unlike"]
        self._sink.load_state_dict(state["sink"])
        self._sent.load_state_dict(state["sent"])
        self._objects.load_state_dict(state["objects"])
        if self._diagnosing is not None and state["diagnosing"] is not None:
            self._diagnosing.load_state_dict(state["diagnosing"])

    @torch.no_grad()
    def _collect(self, version: int, inbox: Sequence[Message]) -> tuple[Tensor, ...]:
        vectors = {m.tag.edge.source: m.tensors[0].to(self._device) for m in inbox}
        counters = {m.tag.edge.source: m.tensors[1] for m in inbox}
        self._sink.units(vectors)
        state, square, whole = by_every_name(self._model), 0.0, []
        for units, layout in zip(self._owners, self._layouts, strict=True):
            replicas = [vectors[unit] for unit in units]
            middle = mean(replicas, layout, self._weights)
            self._unlike.tell(unlike(layout, [counters[unit] for unit in units]))
            whole += [middle, counters[units[0]]]
            put(state, layout, *whole[-2:])
            for weight, one in zip(self._weights, squares(replicas, middle, layout), strict=True):
                square += weight * one
        # What has no mean, as the vectors of spectral normalisation, is made anew for the mean of the weights.
        if self._averaged is not None:
            self._averaged(self._model)
        distance = math.sqrt(square / sum(self._weights))  # sqrt(mean over replicas of ||w_s - w_mean||^2)
        self._record = {"version": version, "epoch": self._epochs(version), "consensus_distance": distance}
        self._record |= self._sent.until(version)
        self._evaluation.begin()
        if self._apart is not None:
            self._apart.begin(vectors, counters)
        if self._test is None:
            self._hand_over(self._record, self._model, self._infinite())
        return tuple(whole)

    @torch.no_grad()
    def _evaluate(self, index: int, inbox: Sequence[Message]) -> None:
        assert self._test is not None
        if inbox:
            for values in in_order([message.tensors[0] for message in inbox]):
                self._evaluation.take(values)
            self._record |= measured(self._evaluation.sums(), {})
            self._hand_over(self._record, self._model, self._infinite())
            return
        given = self._test.inputs(index), self._test.targets(index)
        inputs, targets = mapped(lambda x: x.to(self._device), given)
        if self._apart is not None:
            self._apart.add(self._test.form, inputs, targets, self._precision)
        with self._precision.on(self._device):
            outputs = spread(call(self._model, self._test.form, inputs))
            self._evaluation.add(index, outputs, targets)
        self._evaluation.note(outputs, targets)
        # Slice by slice, so that units in the same process have their turns in between.
        if index + 1 == len(self._test):
            self._record |= measured(self._evaluation.sums(), self._evaluation.metrics.compute())
            if self._apart is not None:
                self._record[JS_DISTANCE] = self._apart.distance()
            self._hand_over(self._record, self._model, self._infinite())

    def _infinite(self) -> str | None:
        trained = ((name, p) for name, p in self._model.named_parameters() if p.requires_grad)
        return next((name for name, p in trained if not p.isfinite().all()), None)
