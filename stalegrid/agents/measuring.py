"""What a stage does for an evaluation through the pipeline: it takes the mean over groups, saves and measures its part.

Does not know: engines, files, the order of its actions.

The mean takes the place of the weights for that long, since a second set would be as large as a stage; with one group
the weights are the mean, and stay.  Nobody looks at them in between: a unit does nothing else until all slices are
through.  Whatever a forward of the measurement leaves behind in the module is put back as it was.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.agents.evaluation import Evaluation, TestSet
from stalegrid.agents.replicas import mean, squares, unlike
from stalegrid.objects import Form, Memory, State, call, kept_apart, mapped, renew, spread
from stalegrid.observe import MeanReport
from stalegrid.programs import LENT, MEAN, MEASURED, TESTED, Action, Edge, Kind, Lent, Message, Tag, Through
from stalegrid.stages import Precision, StageLayout, Weights

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Measured:
    """What a stage measures with.

    Args:
        module: of the stage in evaluation mode, with the parameters of that which trains; None without test data.
        form: of the arguments of the module; None where it takes tensors one by one.
        through: how many slices of test data there are, and what stages lend each other.
        test: the data, of the first and the last stage.
        evaluation: of what the last stage makes.
        precision: what it computes in.
        weights: of the groups in their mean.
        last: whether it makes what the model returns.
    """

    module: nn.Module | None
    form: Form | None
    through: Through
    test: TestSet | None
    evaluation: Evaluation
    precision: Precision
    weights: Sequence[float]
    last: bool


class Measuring:
    """Executes what a unit does for evaluations.

    Args:
        stage: number of the stage.
        weights: of the stage.
        layout: of them.
        measured: what it measures with.
        device: of the stage.
        save: writes what the stage has at a version.
    """

    def __init__(
        self,
        stage: int,
        weights: Weights,
        layout: StageLayout,
        measured: Measured,
        device: torch.device,
        save: Callable[[int], object],
    ) -> None:
        self._weights = weights
        self._layout = layout
        self._measured = measured
        self._device = device
        self._save = save
        self._own: _Own | None = None
        module = measured.module
        self._module = weights.module if module is None else module
        self._borrowed = {} if module is None else _borrowed(module, measured.through.lent, stage)
        self._objects: Memory | None = None

    def remember(self) -> None:
        """Look at the objects that it has; see :class:`stalegrid.agents.Agent`."""
        evaluation = self._measured.evaluation
        self._objects = Memory({"loss": evaluation.loss, "metrics": evaluation.metrics})

    def state_dict(self) -> State:
        """Return what loss and metrics remember."""
        assert self._objects is not None
        return {"objects": self._objects.state_dict()}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        assert self._objects is not None
        self._objects.load_state_dict(state["objects"])

    @torch.no_grad()
    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is Kind.COLLECT:
            return self._collect(action, inbox)
        return self._evaluate(action, inbox)

    def _collect(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        weights, layout = self._weights, self._layout
        replicas = [weights.flat, *(message.tensors[0].to(self._device) for message in inbox)]
        counters = [weights.counted(), *(message.tensors[1].to(self._device) for message in inbox)]
        middle = mean(replicas, layout, self._measured.weights) if inbox else weights.flat
        self._own = _Own.of(weights, self._module, mixed=bool(inbox))
        report = MeanReport(squares(replicas, middle, layout), self._flags(counters), self._infinite(middle))
        for module in (weights.module, self._module):
            module.eval()
        if inbox:
            weights.flat.copy_(middle)
            # What has no mean, as the vectors of spectral normalisation, is made anew for the mean of the weights.
            renew(weights.module)
        self._save(action.index)
        self._measured.evaluation.begin()
        sent = [self._told(tag, report) for tag in action.sends]
        if not self._measured.through.chunks:
            self._end()
        return sent

    def _told(self, tag: Tag, report: MeanReport) -> Message:
        if tag.edge.name == MEAN:
            return Message(tag, tag.index, (report.vector(),))
        assert tag.edge.name == LENT
        lent = self._measured.through.along(tag.edge)
        entries = {entry.name: entry for entry in self._layout.entries}
        return Message(tag, tag.index, tuple(entries[one.name].view(self._weights.flat).clone() for one in lent))

    def _evaluate(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        measured, chunk = self._measured, action.index
        named = {message.tag.edge: message.tensors for message in inbox}
        for edge, tensors in named.items():
            if edge.name == LENT:
                self._borrow(edge, tensors)
        given = next((tensors for edge, tensors in named.items() if edge.name == TESTED), None)
        inputs = tuple(x.to(self._device) for x in (self._test.inputs(chunk) if given is None else given))
        with measured.precision.on(self._device):
            outputs = spread(call(self._module, measured.form, inputs))
            if measured.last:
                targets = mapped(lambda x: x.to(self._device), self._test.targets(chunk))
                measured.evaluation.add(chunk, outputs, targets)
        if measured.last:
            measured.evaluation.note(outputs, targets)
        # Copies: an output may be a view of the weights, or of an input.
        made = {TESTED: tuple(x.clone() for x in outputs) if not measured.last else ()}
        if chunk + 1 == measured.through.chunks:
            made[MEASURED] = (self._numbers(),) if measured.last else ()
            self._end()
        return [Message(tag, self._weights.version, made.get(tag.edge.name, ())) for tag in action.sends]

    @property
    def _test(self) -> TestSet:
        assert self._measured.test is not None
        return self._measured.test

    def _numbers(self) -> Tensor:
        found = self._measured.evaluation
        values = [math.nan if value is None else value for value in found.metrics.compute().values()]
        return torch.tensor([*found.sums(), *values], dtype=torch.float64)

    def _flags(self, counters: Sequence[Tensor]) -> list[bool]:
        names = unlike(self._layout, counters)
        return [name in names for name, _ in self._layout.counters]

    def _infinite(self, vector: Tensor) -> int | None:
        trained = enumerate(self._layout.entries[: self._layout.parameters])
        return next((n for n, entry in trained if not entry.view(vector).isfinite().all()), None)

    def _borrow(self, edge: Edge, tensors: Tensors) -> None:
        assert self._own is not None
        for one, tensor in zip(self._measured.through.along(edge), tensors, strict=True):
            parameter = self._borrowed[one.known]
            self._own.borrowed.append((parameter, parameter.data))
            parameter.data = tensor.to(self._device)

    def _end(self) -> None:
        assert self._own is not None
        self._own.back(self._weights)
        self._own = None


@dataclass
class _Own:
    """What a stage has while it trains, and not while it measures."""

    vector: Tensor
    """Of its weights, from some element on."""
    counters: dict[str, Tensor]
    modes: dict[nn.Module, bool]
    memory: Memory
    objects: Any
    borrowed: list[tuple[nn.Parameter, Tensor]]

    @classmethod
    def of(cls, weights: Weights, module: nn.Module, *, mixed: bool) -> "_Own":
        """Look at a stage.

        Args:
            weights: of it.
            module: that measures.
            mixed: whether another vector takes the place of what is trained.
        """
        first = 0 if mixed else weights.trained
        parts = dict.fromkeys([*module.modules(), *weights.module.modules()])
        memory = Memory({"model": module}, [*module.parameters(), *module.buffers(), weights.flat])
        return cls(
            weights.flat[first:].clone(),
            {name: counter.clone() for name, counter in weights.counters().items()},
            {part: part.training for part in parts},
            memory,
            kept_apart(memory.state_dict()),
            [],
        )

    def back(self, weights: Weights) -> None:
        """Put all back."""
        for parameter, value in self.borrowed:
            parameter.data = value
        weights.flat[len(weights.flat) - len(self.vector) :].copy_(self.vector)
        for name, counter in weights.counters().items():
            counter.copy_(self.counters[name])
        self.memory.load_state_dict(self.objects)
        for part, training in self.modes.items():
            part.training = training


def _borrowed(module: nn.Module, lent: Sequence[Lent], stage: int) -> Mapping[str, nn.Parameter]:
    known = dict(module.named_parameters(remove_duplicate=False))
    return {one.known: known[one.known] for one in lent if one.reader == stage}
