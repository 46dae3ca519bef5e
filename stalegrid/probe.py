"""A trial of one update on copies of the stages, so that what cannot work is said before any process starts.

Does not know: groups, engines, messages.

It also shows whether late backwards are exact: a stage is forwarded, its weights are overwritten with noise, and its
backward must still give the gradients of an undisturbed one.  A custom autograd function that keeps a parameter in its
context, or activation checkpointing, fails this.
"""

import copy
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.seeds import drawing
from stalegrid.stage import Stage
from stalegrid.task import Task
from stalegrid.weights import Stashed, Weights

CPU = torch.device("cpu")


def probe(
    task: Task, stages: Sequence[nn.Module], late: Sequence[bool], inputs: tuple[Tensor, ...], targets: Tensor
) -> list[Weights]:
    """Try forward, loss, backward, optimizer and scheduler on copies of the stages.

    Args:
        task: what is trained.
        stages: its model, cut.
        late: for each stage, whether its backwards come after updates.
        inputs: a batch.
        targets: of that batch.

    Returns:
        The weights of the copies.

    Raises:
        ConfigError: something fails, or a late backward would not be exact.
    """
    tried: list[Weights] = []
    for k, module in enumerate(stages):
        last = k == len(stages) - 1
        head = _head(task, targets) if last else None
        exact = _trial(module, inputs, head, k == 0, disturbed=False)
        if late[k]:
            _compare(k, exact.gradients, _trial(module, inputs, head, k == 0, disturbed=True).gradients)
        _step(task, exact.weights)
        tried.append(exact.weights)
        inputs = exact.outputs
    return tried


class _Trial:
    """A forward and a backward on a copy of a stage."""

    def __init__(self, weights: Weights, outputs: tuple[Tensor, ...]) -> None:
        self.weights = weights
        self.outputs = outputs
        self.gradients = [None if p.grad is None else p.grad.clone() for p in weights.module.parameters()]


def _trial(module: nn.Module, inputs: tuple[Tensor, ...], head: Any, first: bool, *, disturbed: bool) -> _Trial:
    own = copy.deepcopy(module)
    weights = Weights(own)
    view = Stashed(weights)
    stage = Stage(own, weights, view, lambda batch: nullcontext(), first)
    with drawing(CPU, 0, "probe"):
        outputs = stage.forward(0, tuple(x.clone() for x in inputs), head)
        if disturbed:
            view.overwriting()
            weights.flat[: weights.trained].normal_()
            weights.version += 1
        stage.backward(0, tuple(torch.ones_like(y) for y in outputs if y.is_floating_point()))
    return _Trial(weights, outputs)


def _head(task: Task, targets: Tensor) -> Any:
    def head(*outputs: Tensor) -> Tensor:
        try:
            loss = task.loss(*outputs, targets)
        except Exception as problem:  # the loss is the user's: anything can be raised
            shapes = ", ".join(str(tuple(y.shape)) for y in outputs)
            raise ConfigError(
                f"the loss does not accept the model's outputs (shapes: {shapes}): {problem}"
            ) from problem
        if not isinstance(loss, Tensor) or loss.ndim:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ConfigError(f"the loss must be one number, averaged over the samples (it is: {shape})")
        return loss

    return head


def _compare(stage: int, exact: list[Tensor | None], late: list[Tensor | None]) -> None:
    for a, b in zip(exact, late, strict=True):
        if (a is None) != (b is None) or (a is not None and b is not None and not _same(a, b)):
            raise ConfigError(
                f"a late backward of this stage would not see the weights of its forward (stage: {stage}): activation "
                "checkpointing, or a custom autograd function that keeps a parameter in its context instead of "
                "save_for_backward; change that, or give the stage staleness 0"
            )


def _same(a: Tensor, b: Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=0, equal_nan=True)


def _step(task: Task, weights: Weights) -> None:
    """Build the optimizer and scheduler and step them once."""
    given = {id(p) for p in weights.trainable()}
    try:
        optimizer = task.optimizer(weights.trainable())
        scheduler = None if task.scheduler is None else task.scheduler(optimizer)
        taken = {id(p) for group in optimizer.param_groups for p in group["params"]}
        optimizer.step()
        if scheduler is not None:
            scheduler.step()
    except Exception as problem:  # the factories are the user's: anything can be raised
        raise ConfigError(f"the optimizer or scheduler cannot be built or stepped: {problem}") from problem
    if not taken <= given:
        raise ConfigError(
            "the optimizer trains other parameters than it was given; use the argument of its factory, not "
            "model.parameters()"
        )
    weights.check()
