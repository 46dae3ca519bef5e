"""The agents of a run with parameter servers, composed of their parts.

Does not know: engines, which process an agent lives in.
"""

import copy
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor, nn

from stalegrid.agents import Agent
from stalegrid.agents.keyed import keyed
from stalegrid.agents.learner import Learner
from stalegrid.agents.observer import Observer
from stalegrid.agents.server import Parts, Server
from stalegrid.config import Settings
from stalegrid.grid import OBSERVER, Unit
from stalegrid.observe.records import Record, Sink
from stalegrid.observe.takes import Takes
from stalegrid.plan import make_batches, make_test
from stalegrid.program import Schedule
from stalegrid.served import ServedPlan, served_corrections, server_optimizer
from stalegrid.serving import DOOR
from stalegrid.sharding import shard_of
from stalegrid.site import Site
from stalegrid.task import Task
from stalegrid.weights import Versions, Weights


def build_served(
    task: Task, settings: Settings, plan: ServedPlan, units: Iterable[Unit], device: torch.device, sink: Sink
) -> dict[Unit, Agent]:
    """Build some agents of a run; see :func:`stalegrid.agents.build.build_agents`."""
    model = copy.deepcopy(task.model).to(plan.dtype)
    samples = make_batches(task, settings, plan.grid, 1, plan.dtype)
    shards = plan.shapes.shards

    def build(unit: Unit) -> Agent:
        own = copy.deepcopy(model).to(device)
        if unit == OBSERVER:
            test, loss = make_test(task, plan.dtype), loss_on(task, device)
            return Observer(plan.owners, plan.stages, _summarise, own, loss, test, plan.updates_per_epoch, sink)
        if unit in plan.program.shards:
            return Server(_parts(task, settings, plan, unit, own))
        return Learner(unit, own, shards, samples, loss_on(task, device), device, plan.momentum)

    return keyed(build, units, device, settings.seed)


def _parts(task: Task, settings: Settings, plan: ServedPlan, unit: Unit, model: nn.Module) -> Parts:
    module = shard_of(model, plan.shapes.shards[unit.stage].names, buffers=unit == DOOR)
    weights = Weights(module)
    optimizer = server_optimizer(task, plan.momentum)(weights.trainable())
    site = Site(unit, Schedule((1,)), plan.updates, weights, Versions(weights), optimizer)
    corrections = tuple(make(site) for make in served_corrections(plan.corrections, task, settings))
    scheduler = None if task.scheduler is None else task.scheduler(optimizer)
    return Parts(site, corrections, scheduler, plan.rules, plan.shapes.reported)


def _summarise(vectors: Mapping[Unit, Tensor]) -> Record:
    """Return what a record says of the reports of servers, which all took the same gradients."""
    return Takes.read(vectors[DOOR]).record()


def loss_on(task: Task, device: torch.device) -> Callable[..., Tensor]:
    """Return a copy of a task's loss on a device."""
    loss = copy.deepcopy(task.loss)
    return loss.to(device) if isinstance(loss, nn.Module) else loss
