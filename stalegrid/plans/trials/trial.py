"""A copy of a stage, and of the functions of the task, on which to try things.

Does not know: what is tried, groups, engines, messages.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError, DataError
from stalegrid.objects import Form, copied, labels, losses
from stalegrid.plans.task import Task
from stalegrid.programs import Program, Unit
from stalegrid.seeds import drawing
from stalegrid.stages import (
    Precision,
    Site,
    Stashed,
    View,
    kind_of_stage,
)

CPU = torch.device("cpu")

Some = Sequence[Tensor | None]


@dataclass(frozen=True)
class Asked:
    """What trials of a stage are made of.

    Args:
        task: what is trained.
        program: how.
        stage: its number.
        module: of the stage.
        last: whether it computes the loss.
        targets: of the batch, on the last stage.
        samples: returns which they are.
        form: of the arguments of the module; None where it takes the inputs one by one.
        precision: what it computes in.
        moving: frozen parameters that its forward changes.
        compiles: whether torch's compiler makes code of the module.
        made: makes a copy of the module in memory.
    """

    task: Task
    program: Program
    stage: int
    module: nn.Module
    last: bool
    targets: Any
    samples: Callable[[], Tensor] | None = None
    form: Form | None = None
    precision: Precision = field(default_factory=Precision)
    moving: frozenset[str] = frozenset()
    compiles: bool = False
    made: Callable[[nn.Module], nn.Module] = copied


class Trial:
    """A copy of a stage, and of the functions of the task, on which to try things."""

    def __init__(self, asked: Asked) -> None:
        own, program, stage = asked.made(asked.module), asked.program, asked.stage
        self.task = asked.task.fresh()
        self.sums = False
        self._head = self._head_on(asked.targets, asked.samples) if asked.last else None
        with said(f"the weights of a stage cannot be held as one vector (stage: {stage})"):
            self.site = Site.build(Unit(0, stage), program, own, self.task.optimizer_of, asked.moving)
        view = View(self.site) if program.recomputes(stage) else Stashed(self.site)
        kind = kind_of_stage(program, stage)
        first, precision = stage <= program.frozen, asked.precision
        self.stage = kind(own, self.site.weights, view, first, asked.form, precision, asked.compiles)

    def forward(self, inputs: tuple[Tensor, ...], batch: int = 0) -> tuple[Tensor, ...]:
        """Return what it makes of its inputs, and compute the loss on the last stage."""
        with drawing(CPU, 0, "probe", batch):
            outputs, _ = self.stage.forward(batch, tuple(x.clone() for x in inputs), self._head)
        return outputs

    def _head_on(self, targets: Any, samples: Callable[[], Tensor] | None) -> Any:
        def head(*outputs: Any) -> Tensor:
            found = _loss_of(self.task, outputs, targets, samples)
            self.sums = losses.counted(found)
            return losses.parted(found)[0]

        return head

    def recompute(self) -> None:
        """Make the graph of batch 0, drawing what its forward drew."""
        with drawing(CPU, 0, "probe", 0):
            self.stage.recompute(0)

    def disturb(self) -> None:
        """Overwrite the weights with noise, as an update would."""
        self.site.versions.overwriting()
        weights = self.site.weights
        with drawing(CPU, 0, "disturbance"):
            weights.flat[: weights.trained].normal_()
            for name, mirror in weights.mirrored.items():
                self.stage.mirrors.renew(name, torch.randn_like(mirror), 1)
        weights.version += 1

    def backward(self, outputs: tuple[Tensor, ...]) -> None:
        """Make the gradients of batch 0, as if each output had one of ones."""
        with drawing(CPU, 0, "probe"):
            made = outputs if self.stage.outputs(0) else ()  # a frozen stage gets no gradient of what it made
            self.below = self.stage.backward(0, tuple(torch.ones_like(y) for y in made if y.is_floating_point()))

    def gradients(self) -> list[Tensor | None]:
        """Return those of the parameters, then those of mirrors and of the inputs."""
        mirrored = (use.gradient for use in self.stage.mirrors.used.values())
        return [*(p.grad for p in self.site.weights.module.parameters()), *mirrored, *self.below]

    def results(self, outputs: tuple[Tensor, ...]) -> tuple[Some, Some, Some]:
        """Return what it has made: outputs, gradients, buffers."""
        return outputs, self.gradients(), list(self.site.weights.module.buffers())

    def sparse(self) -> str | None:
        """Return the name of a parameter whose gradient is sparse, if there is one."""
        gradients = {entry.name: p.grad for entry, p in self.site.weights.places()}
        gradients |= {name: use.gradient for name, use in self.stage.mirrors.used.items()}
        return next((n for n, g in gradients.items() if g is not None and g.layout != torch.strided), None)


def _loss_of(task: Task, outputs: tuple[Any, ...], targets: Any, samples: Callable[[], Tensor] | None) -> Any:
    known = nullcontext() if samples is None else labels.named(outputs[0], targets, samples, task.loss)
    try:
        with known:
            loss = task.loss(*outputs, targets)
    except (ConfigError, DataError):
        raise
    except Exception as problem:  # the loss is the user's: anything can be raised
        whole = "" if isinstance(targets, Tensor) else "; a batch that is no pair of input and target goes to it whole"
        raise ConfigError(
            f"the loss does not accept the model's outputs (shapes: {', '.join(map(_kind, outputs))}; targets: "
            f"{_kind(targets)}): {problem}{whole}"
        ) from problem
    if (wrong := losses.fault(loss)) is not None:
        raise ConfigError(wrong)
    return loss


def _kind(value: Any) -> str:
    if isinstance(value, Tensor):
        return str(tuple(value.shape))
    return f"{type(value).__name__} of {len(value)}" if isinstance(value, tuple | list) else type(value).__name__


def same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    """Return whether tensors are the same to the bit; what is no number is like itself."""
    return all(
        a is b or (a is not None and b is not None and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(one, other, strict=True)
    )


def without_memory(asked: Asked) -> Site:
    """Return what a stage is like of a model that has no memory, which all stages together are not to take either."""
    unit, optimizer = Unit(0, asked.stage), asked.task.fresh().optimizer_of
    return Site.build(unit, asked.program, copied(asked.module), optimizer, asked.moving)


@contextmanager
def said(what: str) -> Iterator[None]:
    """Turn whatever the user's own factories raise into an error of configuration."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as problem:
        raise ConfigError(f"{what}: {problem}") from problem
