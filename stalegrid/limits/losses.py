"""The training loss of some batches, as a function of what each stage trains, forwarded through the stages as cut.

Does not know: staleness, optimizers, what is made of its curvature.

Batches, random numbers and modes are those of training, but for casts to a lower precision: Hessians are taken in the
parameters' own type.  Attention is computed by torch's plain kernel, since the fused ones have no second derivative.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.limits.curvature import Product, by_differences, second_derivative
from stalegrid.objects import Form, Tensors, by_every_name, call, losses, mapped, spread
from stalegrid.plans import Plan, Task, make_batches, whole_model
from stalegrid.seeds import drawing, generator


@dataclass(frozen=True)
class Sample:
    """Some batches of the training data.

    Args:
        form: of the arguments of the model.
        batches: inputs and targets of each.
    """

    form: Form
    batches: tuple[tuple[Tensors, Any], ...]


def read_sample(task: Task, training: TrainingSettings, groups: int, micro_batches: int, count: int) -> Sample:
    """Read the first batches of a run in the order in which they are trained on, group by group: so streams are read.

    Args:
        task: whose data.
        training: says which samples a batch has.
        groups: S.
        micro_batches: M.
        count: batches; number b is of group b mod S.

    Raises:
        ConfigError: there is to be none.
    """
    if count < 1:
        raise ConfigError(f"curvature is measured on at least one batch (batches: {count})")
    batches = make_batches(task, training, groups, micro_batches)
    places = [(b % groups, b // groups) for b in range(count)]
    return Sample(batches.form, tuple((batches.inputs(*at), batches.targets(*at)) for at in places))


class Losses:
    """The loss of a few batches, as what each stage trains makes it.

    Args:
        task: what is trained; left as it is.
        plan: of the run.
        sample: the batches.
        device: that they are computed on.
        cut: whether they are forwarded through the stages, which take batches of the sizes that the model was cut for.
    """

    def __init__(self, task: Task, plan: Plan, sample: Sample, device: torch.device, *, cut: bool = True) -> None:
        own = task.fresh()
        model = whole_model(task, plan.training).to(device)
        self._stages = plan.partition.stages(model) if cut else [model]
        self._loss = own.loss.to(device) if isinstance(own.loss, nn.Module) else own.loss
        self._device, self._seed = device, plan.training.seed
        self._form = plan.partition.form if cut and plan.partition.form is not None else sample.form
        self._batches = [
            (mapped(self._moved, inputs), mapped(self._moved, targets)) for inputs, targets in sample.batches
        ]
        self._state = by_every_name(model)
        named = dict(model.named_parameters(remove_duplicate=False))
        self.trained: list[list[nn.Parameter]] = [
            [named[entry.name] for entry in read.entries if entry.offset < read.trained] for read in plan.stages
        ]

    def __len__(self) -> int:
        return len(self._batches)

    def at(self, values: Mapping[str, Tensor]) -> None:
        """Take other parameters and buffers, by name."""
        with torch.no_grad():
            for name, value in values.items():
                self._state[name].copy_(value)

    def gradient(self, batch: int) -> Tensor:
        """Return the gradient of the loss of a batch by all that is trained, stage after stage, shape (n,)."""
        parameters = [p for part in self.trained for p in part]
        made = torch.autograd.grad(self._drawn(batch, self._whole(batch))(), parameters, materialize_grads=True)
        return torch.cat([g.flatten() for g in made])

    def hessian(self, parameters: Sequence[Tensor], stage: int | None = None) -> Product:
        """Return the Hessian of the mean loss by some parameters.

        Args:
            parameters: by which.
            stage: where only what bends the output of this stage itself is to count, with the slope there as it is.
        """

        def product(vector: Tensor) -> Tensor:
            found = torch.zeros_like(vector)
            for batch in range(len(self._batches)):
                function = self._whole(batch) if stage is None else self._part(batch, stage)
                found += second_derivative(self._drawn(batch, function), parameters, vector)
            return found / len(self._batches)

        return product

    def error(self, parameters: Sequence[Tensor], vector: Tensor) -> float:
        """Return by what second derivatives along a vector of length 1 differ from differences of gradients.

        Of the batch of which they differ least: between two points a loss of others may have a kink, and then its
        gradients jump; what autograd cannot differentiate, it cannot for any batch.
        """
        errors = []
        for batch in range(len(self._batches)):
            function = self._drawn(batch, self._whole(batch))
            bent = float(torch.dot(vector, second_derivative(function, parameters, vector)))
            errors.append(abs(by_differences(function, parameters, vector) - bent))
        return min(errors)

    def start(self, parameters: Sequence[Tensor], index: int) -> Tensor:
        """Return a vector to begin with, drawn for its place, shape (n,)."""
        numel, first = sum(p.numel() for p in parameters), parameters[0]
        drawn = torch.randn(numel, generator=generator(self._seed, "limits", index), dtype=torch.float64)
        return drawn.to(self._device, first.dtype)

    def _drawn(self, batch: int, function: Callable[[], Tensor]) -> Callable[[], Tensor]:
        """Let a function draw the same whenever it is called, and compute attention so that it has two derivatives."""

        def drawn() -> Tensor:
            with drawing(self._device, self._seed, "limits", batch), sdpa_kernel(SDPBackend.MATH):
                return function()

        return drawn

    def _whole(self, batch: int) -> Callable[[], Tensor]:
        inputs, targets = self._batches[batch]
        return lambda: self._lost(self._forwarded(inputs, range(len(self._stages))), targets)

    def _part(self, batch: int, stage: int) -> Callable[[], Tensor]:
        """Return the outputs of a stage times the slope of the loss by them, which is held."""
        inputs, targets = self._batches[batch]

        def function() -> Tensor:
            made = self._forwarded(inputs, range(stage + 1))
            cut = tuple(y.detach().requires_grad_(y.is_floating_point()) for y in made)
            loss = self._lost(self._forwarded(cut, range(stage + 1, len(self._stages))), targets)
            outputs = [(y, x) for y, x in zip(made, cut, strict=True) if y.requires_grad]
            slopes = torch.autograd.grad(loss, [x for _, x in outputs], materialize_grads=True)
            return torch.stack([(y * slope).sum() for (y, _), slope in zip(outputs, slopes, strict=True)]).sum()

        return function

    def _forwarded(self, values: Tensors, stages: range) -> Tensors:
        values = tuple(x.clone() for x in values)  # which a stage may change in place
        for stage in stages:
            values = spread(call(self._stages[stage], self._form if stage == 0 else None, values))
        return values

    def _lost(self, outputs: Tensors, targets: Any) -> Tensor:
        total, number = losses.parted(self._loss(*outputs, mapped(torch.clone, targets)))
        return total if number is None else total / number.to(total.dtype)

    def _moved(self, tensor: Tensor) -> Tensor:
        return tensor.to(self._device)
