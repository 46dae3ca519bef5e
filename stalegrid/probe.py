"""A trial of one update on copies of the stages, so that what cannot work is said before any process starts.

Does not know: groups, engines, messages.

It also shows whether late backwards are exact: a stage is forwarded, its weights are overwritten with noise, and its
backward must still give the gradients of an undisturbed one.  A custom autograd function that keeps a parameter in its
context, or activation checkpointing, fails this.  Where graphs are made by a second forward, it must repeat the first.
"""

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.corrections import Correction, Maker, Update
from stalegrid.errors import ConfigError
from stalegrid.grid import Unit
from stalegrid.program import Program
from stalegrid.recomputing import RecomputingStage
from stalegrid.seeds import drawing
from stalegrid.site import Site
from stalegrid.stage import Stage
from stalegrid.task import Task
from stalegrid.views import View
from stalegrid.views.stashed import Stashed
from stalegrid.weights import Weights

CPU = torch.device("cpu")


@dataclass(frozen=True, slots=True)
class Probed:
    """What came of a stage.

    Args:
        weights: of the copy.
        optimizer: over them.
        graph: bytes that one batch in flight holds with its graph.
        inputs: bytes of a batch's inputs.
        reads_forwarded: whether a correction reads the weights of every forward.
    """

    weights: Weights
    optimizer: Optimizer
    graph: int
    inputs: int
    reads_forwarded: bool


def probe(
    task: Task,
    program: Program,
    view: type[View],
    corrections: Sequence[Maker],
    stages: Sequence[nn.Module],
    inputs: tuple[Tensor, ...],
    targets: Tensor,
) -> list[Probed]:
    """Try forward, loss, backward, view, corrections, optimizer and scheduler on copies of the stages.

    Args:
        task: what is trained.
        program: how.
        view: which weights late backwards see.
        corrections: of each unit.
        stages: the model, cut.
        inputs: a batch.
        targets: of that batch.

    Returns:
        What came of each stage.

    Raises:
        ConfigError: something fails, or a late backward would not be what it is said to be.
    """
    probed: list[Probed] = []
    for k, module in enumerate(stages):
        head = _head(task, targets) if k == len(stages) - 1 else None
        trial = _Trial(task, program, k, module)
        with _said(f"a stage cannot be forwarded as the view wants it (stage: {k})"):
            outputs = trial.forward(inputs, head)
            trial.recompute()
        graph = trial.stage.nbytes
        trial.backward(outputs)
        if program.recomputes(k):
            _check_repeats(k, _Trial(task, program, k, module), inputs, head)
        elif program.schedule.bound(0 if view.ahead_of_all else k):
            _check_late(k, trial, _Trial(task, program, k, module), inputs, head)
        view(trial.site)
        own = _corrections(trial.site, corrections)
        if head is None:
            _receive(own, outputs)
        _step(task, trial.site, own)
        reads = any(c.needs_forwarded for c in own)
        probed.append(Probed(trial.site.weights, trial.site.optimizer, graph, sum(x.nbytes for x in inputs), reads))
        inputs = outputs
    return probed


class _Trial:
    """A copy of a stage on which to try things."""

    def __init__(self, task: Task, program: Program, stage: int, module: nn.Module) -> None:
        own = copy.deepcopy(module)
        with _said("the optimizer cannot be built"):
            self.site = Site.build(Unit(0, stage), program, own, task.optimizer)
        kind = RecomputingStage if program.recomputes(stage) else Stage
        view = View(self.site) if program.recomputes(stage) else Stashed(self.site)
        self.stage = kind(own, self.site.weights, view, stage == 0)

    def forward(self, inputs: tuple[Tensor, ...], head: Any, batch: int = 0) -> tuple[Tensor, ...]:
        with drawing(CPU, 0, "probe", batch):
            outputs, _ = self.stage.forward(batch, tuple(x.clone() for x in inputs), head)
        return outputs

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
        weights.version += 1

    def backward(self, outputs: tuple[Tensor, ...]) -> None:
        with drawing(CPU, 0, "probe"):
            self.below = self.stage.backward(0, tuple(torch.ones_like(y) for y in outputs if y.is_floating_point()))

    def gradients(self) -> list[Tensor | None]:
        """Return those of the parameters, then those of the inputs."""
        return [*(p.grad for p in self.site.weights.module.parameters()), *self.below]


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


def _check_late(stage: int, exact: _Trial, late: _Trial, inputs: tuple[Tensor, ...], head: Any) -> None:
    """Hold a backward after a change of the weights against the one without."""
    outputs = late.forward(inputs, head)
    late.disturb()
    with _said(f"a late backward of this stage fails (stage: {stage})"):
        late.backward(outputs)
    if not _same(exact.gradients(), late.gradients()):
        raise ConfigError(
            f"a late backward of this stage would not see the weights of its forward (stage: {stage}): activation "
            "checkpointing, or a custom autograd function that keeps a parameter in its context instead of "
            "save_for_backward; change that, give the stage staleness 0, or take view recomputed"
        )


def _check_repeats(stage: int, trial: _Trial, inputs: tuple[Tensor, ...], head: Any) -> None:
    """Hold the second forward of a batch, with another one in between, against the first."""
    first = trial.forward(inputs, head)
    trial.forward(inputs, head, batch=1)
    trial.recompute()
    if not _same(first, trial.stage.outputs(0)):
        raise ConfigError(
            f"a second forward of the same batch gives other outputs (stage: {stage}): its forward reads a buffer "
            "or an attribute that it also changes, or draws random numbers of its own; take view stashed"
        )


def _same(one: Sequence[Tensor | None], other: Sequence[Tensor | None]) -> bool:
    return all(
        a is b or (a is not None and b is not None and torch.allclose(a, b, rtol=0, atol=0, equal_nan=True))
        for a, b in zip(one, other, strict=True)
    )


def _corrections(site: Site, corrections: Sequence[Maker]) -> list[Correction]:
    with _said("a correction cannot be built"):
        made = [make(site) for make in corrections]
    schedule = site.schedule
    one_version = schedule.micro_batches == 1 or schedule.flush or schedule.delay
    if not one_version and any(c.needs_forwarded for c in made):
        raise ConfigError(
            f"a correction reads the weights that its batch was forwarded at, and the batches of an update may differ "
            f"in them (micro_batches: {schedule.micro_batches}); take micro_batches 1"
        )
    return made


def _receive(corrections: Sequence[Correction], outputs: tuple[Tensor, ...]) -> None:
    """Let the corrections receive the gradients of a stage's outputs once."""
    given = tuple(torch.ones_like(y) for y in outputs if y.is_floating_point())
    for correction in corrections:
        with _said(f"{type(correction).__name__}.received fails"):
            shapes = [tuple(g.shape) for g in correction.received(given)]
        if shapes != [tuple(g.shape) for g in given]:
            raise ConfigError(
                f"{type(correction).__name__}.received must return a gradient for each that it is given, of its shape "
                f"(given: {[tuple(g.shape) for g in given]}, returned: {shapes})"
            )


def _step(task: Task, site: Site, corrections: Sequence[Correction]) -> None:
    """Step the corrections, the optimizer and the scheduler once."""
    given = {id(p) for p in site.weights.trainable()}
    taken = {id(p) for group in site.optimizer.param_groups for p in group["params"]}
    update = Update(0, 0, site.weights.flat.clone())
    with _said("the corrections, the optimizer or the scheduler cannot be built or stepped"):
        scheduler = None if task.scheduler is None else task.scheduler(site.optimizer)
        for correction in corrections:
            correction.correct(update)
            float(correction.rate(update))
        site.optimizer.step()
        for correction in corrections:
            correction.stepped(update)
        if scheduler is not None:
            scheduler.step()
    if not taken <= given:
        raise ConfigError(
            "the optimizer trains other parameters than it was given; use the argument of its factory, not "
            "model.parameters()"
        )
    site.weights.check()


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Turn whatever the user's own factories raise into an error of configuration."""
    try:
        yield
    except ConfigError:
        raise
    except Exception as problem:
        raise ConfigError(f"{what}: {problem}") from problem
