"""The agents of a run with parameter servers, composed of their parts.

Does not know: engines, which process an agent lives in.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from stalegrid.agents.agent import Agent
from stalegrid.agents.keyed import keyed
from stalegrid.agents.learner import Learner
from stalegrid.agents.observer import Observer
from stalegrid.agents.sent import Sent
from stalegrid.agents.server import Parts, Server
from stalegrid.data import Batches, Feed, Readers, Stream, Unread, feed
from stalegrid.objects import LossFunction, copied, renew
from stalegrid.observe import Metrics, Record, Sink, Takes
from stalegrid.partition import shard_of
from stalegrid.plans import (
    ServedPlan,
    Task,
    Traffic,
    make_batches,
    make_test,
    precision_of,
    served_makers,
    server_optimizer,
    whole_model,
)
from stalegrid.programs import DOOR, OBSERVER, Schedule, Unit
from stalegrid.stages import Site, Versions, Weights


def build_served(
    task: Task, plan: ServedPlan, units: Sequence[Unit], device: torch.device, sink: Sink, readers: Readers | None
) -> dict[Unit, Agent]:
    """Build some agents of a run; see :func:`stalegrid.agents.build.build_agents`."""
    model = whole_model(task, plan.training)
    groups = {unit.group for unit in units if unit in plan.program.learners}
    # A learner wants both inputs and targets; when the run ends it may have one batch that no server took.
    takers = {number: (begun, begun) for number in groups for begun in [plan.program.cut.given(number)]}
    samples: Batches | Stream | Feed | Unread = Unread(None)
    if groups:
        batches = make_batches(task, plan.training, plan.grid.groups, 1, groups)
        samples = feed(batches, takers, plan.program.updates * plan.rules.gather + 1, plan.training.workers, readers)
    shards = plan.shapes.shards
    moving, precision = plan.stages[0].names, precision_of(plan.training)

    def build(unit: Unit) -> Agent:
        own, task_of_unit = copied(model).to(device), task.fresh()
        loss = loss_on(task_of_unit, device)
        if unit == OBSERVER:
            test = make_test(task, plan.training)
            metrics = Metrics(task.metrics, device)
            mean = renew if plan.rules.gather > 1 else None
            told = metrics, plan.epochs, sink, Sent(Traffic(plan).of), mean
            return Observer(plan.owners, plan.stages, _summarise, own, loss, test, *told, precision)
        if unit in plan.program.shards:
            return Server(_parts(task_of_unit, plan, unit, own))
        return Learner(unit, own, shards, samples, loss, device, plan.momentum, moving, plan.sums, precision)

    return keyed(build, units, device, plan.training.seed)


def _parts(task: Task, plan: ServedPlan, unit: Unit, model: nn.Module) -> Parts:
    layout = plan.stages[unit.stage]
    weights = Weights(shard_of(model, layout.names, buffers=unit == DOOR), layout.names)
    optimizer = server_optimizer(task, plan.momentum)(weights.named())
    site = Site(unit, Schedule((1,)), plan.updates, weights, Versions(weights), optimizer)
    corrections = tuple(make(site) for make in served_makers(plan.corrections))
    scheduler = task.scheduler_of(optimizer)
    return Parts(site, corrections, scheduler, plan.rules, plan.shapes.reported, plan.sums)


def _summarise(vectors: Mapping[Unit, Tensor]) -> Record:
    """Return what a record says of the reports of servers, which all took the same gradients."""
    return Takes.read(vectors[DOOR]).record()


def loss_on(task: Task, device: torch.device) -> LossFunction:
    """Return a task's loss on a device."""
    return task.loss.to(device) if isinstance(task.loss, nn.Module) else task.loss
