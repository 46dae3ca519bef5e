"""A task from the names and numbers of the command line.

Does not know: grids beyond their number of groups, engines.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer, lr_scheduler

from stalegrid import models
from stalegrid.config import RunConfig
from stalegrid.data import ArrayDataset, CropAndFlip, load
from stalegrid.errors import ConfigError
from stalegrid.methods.methods import find, find_served
from stalegrid.plans.plan import grid_of, updates_of
from stalegrid.plans.served import rules_of, updates_per_epoch
from stalegrid.plans.task import Task
from stalegrid.seeds import drawing


def make_task(config: RunConfig) -> Task:
    """Build the model, data, optimizer and schedule that are asked for.

    Raises:
        ConfigError: a name is unknown, a number impossible, or the data not there.
    """
    train, test = load(config.data, config.data_dir)
    augment = config.data == "cifar10" if config.augment is None else config.augment
    return Task(
        model=_model(config, train),
        data=train,
        loss=nn.CrossEntropyLoss(),
        optimizer=_optimizer(config),
        scheduler=_scheduler(config, len(train)),
        test=test,
        augment=CropAndFlip() if augment else None,
    )


def _model(config: RunConfig, data: ArrayDataset) -> nn.Module:
    with drawing(torch.device("cpu"), config.seed, "model"):
        return models.build(config.model, data[0][0], data.classes)


def _optimizer(config: RunConfig) -> Callable[[list[nn.Parameter]], Optimizer]:
    method = None if find_served(config.method) else find(config.method)
    name = config.optimizer or ((method and method.optimizer) or "sgd").lower()
    usual_momentum = 0.9 if method is None else method.momentum
    momentum = usual_momentum if config.momentum is None else config.momentum
    usual = 0.05 if name == "sgd" else 0.002
    common: dict[str, Any] = {
        "lr": usual if config.lr is None else config.lr,
        "weight_decay": config.weight_decay,
    }
    if config.nesterov and name != "sgd":
        raise ConfigError(f"nesterov is for sgd (optimizer: {name}); nadam is Adam with Nesterov's momentum")
    if name == "sgd":
        return partial(torch.optim.SGD, momentum=momentum, nesterov=config.nesterov, **common)
    common["betas"] = (momentum, 0.999)
    if name == "nadam":
        return partial(torch.optim.NAdam, decoupled_weight_decay=True, **common)
    return partial(torch.optim.Adam if name == "adam" else torch.optim.AdamW, **common)


def _scheduler(config: RunConfig, samples: int) -> Callable[[Optimizer], lr_scheduler.LRScheduler] | None:
    if config.milestones is not None and config.schedule != "step":
        raise ConfigError(f"milestones are those of schedule step (schedule: {config.schedule}); take step, or none")
    if config.schedule == "constant":
        return None
    if config.batch_size < 1:
        raise ConfigError(f"batch_size must be at least 1, not {config.batch_size}")
    updates = updates_of(config, _updates_per_epoch(config, samples))
    if config.schedule == "cosine":
        return partial(lr_scheduler.CosineAnnealingLR, T_max=updates)
    if config.schedule == "step":
        milestones = [updates // 2, 3 * updates // 4]
        if config.milestones is not None:
            milestones = [round(epoch * _updates_per_epoch(config, samples)) for epoch in config.milestones]
        return partial(lr_scheduler.MultiStepLR, milestones=milestones)
    return partial(_one_cycle, updates=updates)


def _updates_per_epoch(config: RunConfig, samples: int) -> float:
    served = find_served(config.method)
    if served is None:
        return samples // grid_of(config).groups // config.batch_size
    learners = rules_of(config, served)[0].learners
    return updates_per_epoch(config, served, samples // learners // config.batch_size * learners * config.batch_size)


def _one_cycle(optimizer: Optimizer, updates: int) -> lr_scheduler.LRScheduler:
    # One step more than updates: the scheduler is stepped after the last update too.  Momentum stays the user's.
    rates = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=updates + 1, pct_start=0.3, cycle_momentum=False)
