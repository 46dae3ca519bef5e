"""The largest stable rate of every stage of a run, from its plan and the curvature of its loss.

Does not know: engines, how a run is asked for, how it is shown.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import torch
from torch import Tensor
from torch.optim import Optimizer

from stalegrid.limits.curvature import Top, largest
from stalegrid.limits.delays import SPLIT, TAKEN_LATE, delays, known, renewed
from stalegrid.limits.losses import Losses, read_sample
from stalegrid.limits.rules import MOST, Unknown, decay_along, fits, rounds_of, scale_of, steps_of
from stalegrid.observe import Record
from stalegrid.plans import Plan, Task
from stalegrid.stability import Late, Recursion, Rounds, left_by_mixing, rate_of_groups
from stalegrid.stages import name_of_view

BATCHES = 4
"""Batches of which curvature is measured."""

PRODUCTS = 40
"""Products with the Hessian, at most, for every stage."""


@dataclass(frozen=True)
class Limit:
    """The largest stable rate of a stage, or of all of them together.

    Args:
        stage: which; None for all, along the largest curvature of the whole loss.
        staleness: of the stage; the largest of all.
        curvature: the largest of the loss on what is trained there, without weight decay; None where nothing is.
        settled: whether that has settled.
        trusted: whether differences of gradients show it too.
        fresh: the share of it that is of the weights of now.
        alone: largest stable rate of a group by itself; None where it is not known.
        rate: that of all groups, as they mix; None where it is not known.
        at_once: that of one group if nothing were late.
        taken: whether what is late is not derived, and taken to be all.
        why: why a rate is not known.
    """

    stage: int | None
    staleness: int
    curvature: float | None = None
    settled: bool = True
    trusted: bool = True
    fresh: float = 0.0
    alone: float | None = None
    rate: float | None = None
    at_once: float | None = None
    taken: bool = False
    why: str = ""


@dataclass(frozen=True)
class Limits:
    """What was found of a run.

    Args:
        each: the limits of stages, then that of all together, where there are several.
        left: what a round's updates leave of the distance between groups, by update; None where they do not mix.
        peak: the highest rate that the schedule comes to.
    """

    each: tuple[Limit, ...]
    left: float | None
    peak: float

    @property
    def exceeded(self) -> list[Limit]:
        """The limits that the schedule's highest rate is above."""
        return [limit for limit in self.each if limit.rate is not None and self.peak > limit.rate]

    def plain(self) -> Record:
        """Return it as a file has it."""
        return asdict(self)


def measure_limits(
    task: Task, plan: Plan, device: torch.device, batches: int = BATCHES, products: int = PRODUCTS
) -> Limits:
    """Measure curvature, and say which rates a run bears.

    Args:
        task: what is trained; left as it is, and measured as its model is now.
        plan: how.
        device: to measure on.
        batches: of which the loss is taken.
        products: with the Hessian, at most, for every stage.

    Raises:
        ConfigError: curvature cannot be measured.
    """
    sample = read_sample(task, plan.training, plan.grid.groups, plan.schedule.micro_batches, batches)
    losses = Losses(task, plan, sample, device)
    optimizer = optimizer_of(task, losses, plan)
    return limits_at(plan, losses, optimizer, _peak(task, optimizer, plan.updates), products)


def limits_at(plan: Plan, losses: Losses, optimizer: Optimizer, peak: float, products: int = PRODUCTS) -> Limits:
    """Say which rates a run bears by the curvature of a loss where it is now; see :func:`measure_limits`.

    Args:
        plan: how.
        losses: of which, at the weights that they have.
        optimizer: of all stages at once, for the parameters of these.
        peak: a rate that is held against them.
        products: with the Hessian, at most, for every stage.
    """
    rounds = rounds_of(plan)
    measured = _Measured(plan, losses, optimizer, rounds, products)
    each = [measured.stage(k) for k in range(plan.grid.stages)]
    if sum(map(bool, losses.trained)) > 1:
        each.append(measured.together())
    left = left_by_mixing(rounds) if isinstance(rounds, Rounds) and fits(rounds, 0) else None
    return Limits(tuple(each), left, peak)


def optimizer_of(task: Task, losses: Losses, plan: Plan) -> Optimizer:
    """Return the optimizer of all stages at once, for the parameters of a loss."""
    names = [entry.name for read in plan.stages for entry in read.entries if entry.offset < read.trained]
    parameters = (p for part in losses.trained for p in part)
    return task.fresh().optimizer_of(zip(names, parameters, strict=True))


def _peak(task: Task, optimizer: Optimizer, updates: int) -> float:
    """Return the highest rate of a run."""
    scheduler = task.fresh().scheduler_of(optimizer)
    highest = max(float(group["lr"]) for group in optimizer.param_groups)
    if scheduler is None:
        return highest
    for _ in range(updates - 1):
        optimizer.step()  # of nothing, since there are no gradients; a scheduler wants it
        scheduler.step()
        highest = max(highest, *(float(group["lr"]) for group in optimizer.param_groups))
    return highest


@dataclass(frozen=True)
class _Measured:
    """Makes limits of measurements."""

    plan: Plan
    losses: Losses
    optimizer: Optimizer
    rounds: Rounds | Unknown | None
    products: int

    def stage(self, stage: int) -> Limit:
        """Return the limit of a stage by itself."""
        parameters, plan = self.losses.trained[stage], self.plan
        limit = Limit(stage, plan.bounds[stage])
        if not parameters:
            return replace(limit, why="trains nothing")
        top = self._top(parameters, stage)
        limit = self._measured(limit, parameters, top)
        scale = scale_of(plan, stage)
        if top.value <= 0 or isinstance(scale, Unknown):
            return replace(limit, why=_NONE if top.value <= 0 else scale.why)  # type: ignore[union-attr]
        late, fresh = self._parts(stage, top)
        share = fresh / top.value
        limit = replace(limit, fresh=share, taken=limit.staleness > 0 and name_of_view(plan.view) in TAKEN_LATE)
        return self._rated(limit, _scaled(late, scale), fresh * scale, self._decay(parameters, top))

    def together(self) -> Limit:
        """Return the limit along the largest curvature of the whole loss, with what each stage has of it as late."""
        plan, trained = self.plan, self.losses.trained
        parameters = [p for part in trained for p in part]
        limit = Limit(None, max(plan.bounds))
        top = self._top(parameters, plan.grid.stages)
        limit = self._measured(limit, parameters, top)
        if top.value <= 0:
            return replace(limit, why=_NONE)
        scale, *others = {scale_of(plan, k) for k in range(plan.grid.stages)}
        if isinstance(scale, Unknown):
            return replace(limit, why=scale.why)
        if others:
            return replace(limit, why="not known where corrections scale stages unlike")
        parts = torch.split(top.vector, [sum(p.numel() for p in part) for part in trained])
        shares = [float(part.square().sum()) for part in parts]
        late = [one for k, share in enumerate(shares) for one in _scaled(self._delays(k), share * top.value * scale)]
        return self._rated(replace(limit, taken=limit.staleness > 0), late, 0.0, self._decay(parameters, top))

    def _top(self, parameters: Sequence[Tensor], index: int) -> Top:
        return largest(self.losses.hessian(parameters), self.losses.start(parameters, index), self.products)

    def _measured(self, limit: Limit, parameters: Sequence[Tensor], top: Top) -> Limit:
        trusted = self.losses.error(parameters, top.vector) <= _UNLIKE * abs(top.value)
        return replace(limit, curvature=top.value, settled=top.settled, trusted=trusted)

    def _delays(self, stage: int) -> tuple[Late, ...]:
        return delays(self.plan.schedule, self.plan.view, stage) if known(self.plan.view) else ()

    def _parts(self, stage: int, top: Top) -> tuple[list[Late], float]:
        """Return the parts of a stage's curvature that are late, and what is not."""
        plan, parameters = self.plan, self.losses.trained[stage]
        fresh = 0.0
        if name_of_view(plan.view) == SPLIT and plan.bounds[stage] and not renewed(plan.schedule, plan.view, stage):
            fresh = float(torch.dot(top.vector, self.losses.hessian(parameters, stage)(top.vector)))
        return _scaled(self._delays(stage), top.value - fresh), fresh

    def _decay(self, parameters: Sequence[Tensor], top: Top) -> float:
        parts = torch.split(top.vector, [p.numel() for p in parameters])
        return decay_along(self.optimizer, dict(zip(parameters, parts, strict=True)))

    def _rated(self, limit: Limit, late: Sequence[Late], fresh: float, decay: float) -> Limit:
        """Return a limit with its rates, where they are known."""
        steps = steps_of(self.optimizer)
        if isinstance(steps, Unknown):
            return replace(limit, why=steps.why)
        if not known(self.plan.view):
            return replace(limit, why=f"not known for a view of your own ({name_of_view(self.plan.view)})")
        recursion = Recursion(tuple(late), fresh + decay, steps)
        alone, at_once = recursion.largest_rate(), recursion.at_once().largest_rate()
        limit = replace(limit, alone=alone, at_once=at_once)
        if self.rounds is None:
            return replace(limit, rate=alone)
        if isinstance(self.rounds, Unknown):
            return replace(limit, why=self.rounds.why)
        if not fits(self.rounds, recursion.delay):
            return replace(limit, why=f"not computed for so many groups and delays (more than {MOST} numbers)")
        return replace(limit, rate=rate_of_groups(recursion, self.rounds))


_UNLIKE = 0.1  # of a curvature, by which differences of gradients may show another one

_NONE = "the loss bends up nowhere: no rate leads to rest, and none is the limit of staleness"


def _scaled(late: Sequence[Late], curvature: float) -> list[Late]:
    return [replace(part, curvature=part.curvature * curvature) for part in late]
