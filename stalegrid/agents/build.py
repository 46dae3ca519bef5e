"""The agents of a run, composed of their parts.

Does not know: engines, which process an agent lives in.
"""

from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from functools import partial

import torch
from torch import nn

from stalegrid import methods
from stalegrid.agents import Agent
from stalegrid.agents.build_served import build_served, loss_on
from stalegrid.agents.observer import Observer
from stalegrid.agents.pipeline import Exchange, Parts, PipelineUnit, Role
from stalegrid.config import Settings
from stalegrid.consensus.allreduce import GradientAveraging
from stalegrid.consensus.averaging import ParameterAveraging
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import AllReduce, Averaging
from stalegrid.copies import copied
from stalegrid.grid import OBSERVER, Unit
from stalegrid.ledger import Ledger
from stalegrid.observe.records import Sink, Tally, summarise
from stalegrid.plan import Plan, chosen_corrections, corrections_of, make_batches, make_test
from stalegrid.recomputing import RecomputingStage
from stalegrid.seeds import drawing
from stalegrid.served import ServedPlan
from stalegrid.site import Site
from stalegrid.stage import Stage
from stalegrid.task import Task
from stalegrid.views import VIEWS
from stalegrid.weights import Weights


def build_agents(
    task: Task, settings: Settings, plan: Plan | ServedPlan, units: Iterable[Unit], device: torch.device, sink: Sink
) -> dict[Unit, Agent]:
    """Build some agents of a run.

    Args:
        task: what is trained; left as it is.
        settings: how.
        plan: made of both.
        units: which agents, in the order they will be stepped.
        device: that they compute on.
        sink: where the observer writes.

    Returns:
        The agents by unit, in the same order.
    """
    if isinstance(plan, ServedPlan):
        return build_served(task, settings, plan, units, device, sink)
    model = copied(task.model).to(plan.dtype)
    stages = plan.partition.stages(model)
    samples = make_batches(task, settings, plan.grid, plan.schedule.micro_batches, plan.dtype)

    def build(unit: Unit) -> Agent:
        if unit == OBSERVER:
            plain, test = copied(model).to(device), make_test(task, plan.dtype)
            loss = loss_on(task, device)
            return Observer(plan.owners, plan.stages, summarise, plain, loss, test, plan.updates_per_epoch, sink)
        module = copied(stages[unit.stage]).to(device)
        draws = partial(drawing, device, settings.seed, "forward", unit.group, unit.stage)
        role = Role(unit, plan.grid.stages, plan.schedule.micro_batches)
        parts = _parts(task, settings, plan, unit, module, draws)
        return PipelineUnit(role, parts, samples, loss_on(task, device), device)

    return {unit: build(unit) for unit in units}


def _parts(
    task: Task,
    settings: Settings,
    plan: Plan,
    unit: Unit,
    module: nn.Module,
    draws: Callable[[int], AbstractContextManager[None]],
) -> Parts:
    site = Site.build(unit, plan.program, module, task.optimizer)
    scheduler = None if task.scheduler is None else task.scheduler(site.optimizer)
    corrections = tuple(
        make(site) for make in corrections_of(chosen_corrections(plan.method.corrections, settings), task, settings)
    )
    tally = Tally(unit, site.bound)
    hold_all = any(c.needs_forwarded for c in corrections)
    ledger = Ledger(site, tally, measure_gap=settings.gap, hold_all=hold_all)
    kind = RecomputingStage if plan.program.recomputes(unit.stage) else Stage
    stage = kind(module, site.weights, VIEWS[plan.view](site), draws, first=unit.stage == 0)
    exchange = _exchange(plan, unit, site.weights, site.optimizer)
    return Parts(stage, site.versions, ledger, tally, corrections, site.optimizer, scheduler, exchange)


def _exchange(plan: Plan, unit: Unit, weights: Weights, optimizer: torch.optim.Optimizer) -> Exchange | None:
    match plan.program.lateral:
        case Averaging() as rounds:
            momentum = Momentum(optimizer, weights.trainable()) if plan.mix_momentum else None
            return ParameterAveraging(rounds, weights, momentum)
        case AllReduce(groups):
            return GradientAveraging(groups, unit.group, weights)
    assert plan.mixing == methods.NO_MIXING
    return None
