"""A view, corrections, the optimizer and the scheduler of a stage, each asked once for what a run will ask of it.

Does not know: what the stage computes.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.plans.task import Task
from stalegrid.plans.trials.trial import said
from stalegrid.stages import (
    Correction,
    Maker,
    Site,
    Update,
    View,
    Weights,
    name_of_view,
)


def try_view(view: type[View], site: Site) -> None:
    """Ask a view once for the weights of a forward and of its backward, as a stage will."""
    with said(f"the view cannot be built or used (view: {name_of_view(view)})"):
        own = view(site)
        version, vector = own.forwarding(0)
        _check_vector(view, "forwarding", vector, site.weights)
        if vector is not site.weights.flat and not view.elsewhere:
            raise ConfigError(
                f"the view forwards at other weights than those of now (view: {name_of_view(view)}, elsewhere: False); "
                "set elsewhere = True in its class, so that the model is tried that way"
            )
        _check_vector(view, "seen", own.seen(version), site.weights)
        own.finished(version)
        own.overwriting()
        kept = view.kept(site.schedule, site.unit.stage)
        if own.nbytes > kept.copies * site.weights.trained * site.weights.flat.itemsize:
            raise ConfigError(
                f"the view keeps more than it says (view: {name_of_view(view)}, keeps: {own.nbytes} bytes, {kept}); "
                "let kept count its vectors, each as large as the parameters"
            )


def _check_vector(view: type[View], asked: str, vector: object, weights: Weights) -> None:
    flat = weights.flat
    fits = isinstance(vector, Tensor) and vector.dim() == 1 and vector.is_contiguous()
    if not fits or vector.dtype != flat.dtype or len(vector) < weights.trained:  # type: ignore[attr-defined,arg-type]
        shown = (
            f"{vector.dtype} of shape {tuple(vector.shape)}" if isinstance(vector, Tensor) else type(vector).__name__
        )
        raise ConfigError(
            f"a view returns a vector like self.parameters, which is {flat.dtype} of shape ({weights.trained},) "
            f"(view: {name_of_view(view)}, {asked} returned: {shown})"
        )


def corrections_of(site: Site, corrections: Sequence[Maker]) -> list[Correction]:
    """Return the corrections of a stage.

    Raises:
        ConfigError: one cannot be built, is none, or reads what differs within an update.
    """
    with said("a correction cannot be built"):
        made = [make(site) for make in corrections]
    if wrong := next((c for c in made if not isinstance(c, Correction)), None):
        raise ConfigError(
            f"this makes no correction (corrections: {type(wrong).__name__}); inherit from stalegrid.Correction, and "
            "give the class or a function of a site"
        )
    schedule = site.schedule
    one_version = schedule.micro_batches == 1 or schedule.flush or schedule.delay
    if not one_version and any(c.needs_forwarded for c in made):
        raise ConfigError(
            f"a correction reads the weights that its batch was forwarded at, and the batches of an update may differ "
            f"in them (micro_batches: {schedule.micro_batches}); take micro_batches 1"
        )
    return made


def receive(corrections: Sequence[Correction], outputs: tuple[Tensor, ...]) -> None:
    """Let the corrections receive the gradients of a stage's outputs once."""
    given = tuple(torch.ones_like(y) for y in outputs if y.is_floating_point())
    for correction in corrections:
        with said(f"{type(correction).__name__}.received fails"):
            shapes = [tuple(g.shape) for g in correction.received(given)]
        if shapes != [tuple(g.shape) for g in given]:
            raise ConfigError(
                f"{type(correction).__name__}.received must return a gradient for each that it is given, of its shape "
                f"(given: {[tuple(g.shape) for g in given]}, returned: {shapes})"
            )


def step(task: Task, site: Site, corrections: Sequence[Correction]) -> None:
    """Step the corrections, the optimizer and the scheduler once."""
    update = Update(0, 0, site.weights.flat.clone())
    with said("the corrections, the optimizer or the scheduler cannot be built or stepped"):
        scheduler = task.scheduler_of(site.optimizer)
        _check_length(scheduler, site.updates)
        for correction in corrections:
            correction.correct(update)
            float(correction.rate(update))
        for correction in corrections:
            correction.stepping(update)
        site.optimizer.step()
        for correction in corrections:
            correction.stepped(update)
        if scheduler is not None:
            scheduler.step()
    _check_kept(site, corrections)
    try:
        site.weights.check()
    except TrainingError as problem:
        raise ConfigError(str(problem)) from problem


def _check_kept(site: Site, corrections: Sequence[Correction]) -> None:
    vector = site.weights.trained * site.weights.flat.itemsize
    for correction in corrections:
        if correction.nbytes > correction.vectors * vector:
            raise ConfigError(
                f"a correction keeps more than it says (correction: {type(correction).__name__}, keeps: "
                f"{correction.nbytes} bytes, vectors: {correction.vectors} of {vector} bytes); let vectors count those "
                "that it keeps, each as large as the parameters"
            )


def _check_length(scheduler: LRScheduler | None, updates: int) -> None:
    steps = getattr(scheduler, "total_steps", None)
    if isinstance(steps, int) and steps < updates:
        raise ConfigError(
            f"the schedule is shorter than the run (total_steps: {steps}, updates: {updates}), and it is stepped after "
            "every update"
        )
