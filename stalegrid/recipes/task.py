"""A task of names: model, data, loss, optimizer and schedule.

Does not know: grids beyond how many updates an epoch has, engines.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer, lr_scheduler
from torch.utils.data import DataLoader, Dataset

from stalegrid.data import CropAndFlip, Division, Later, Reading, check_size, given, is_stream, load
from stalegrid.errors import ConfigError
from stalegrid.methods import ServerMethod, find
from stalegrid.models import build
from stalegrid.objects import LossFunction, own_loss
from stalegrid.observe import Measure, Perplexity
from stalegrid.plans import Task, grid_of, rules_of, updates_of, updates_per_epoch
from stalegrid.recipes.factories import Wanted, factory_of, refuse_args
from stalegrid.recipes.settings import DataSettings, LossSettings, OptimizerSettings, RunConfig
from stalegrid.seeds import drawing
from stalegrid.sources import Source, built
from stalegrid.stages import Named, OptimizerFactory, takes_names
from stalegrid.written import is_path, said, unknown, value_of

CPU = torch.device("cpu")

OPTIMIZERS = ("sgd", "adam", "adamw", "nadam")

DECAYS = ("all", "matrices")

LOSSES: dict[str, Callable[[], LossFunction]] = {"cross-entropy": nn.CrossEntropyLoss, "own": lambda: own_loss}

SCHEDULES = ("constant", "cosine", "one-cycle", "step")

MODEL = Wanted("model", nn.Module, "return a torch.nn.Module")
DATA = Wanted("data", tuple, "return a pair: a training and a test set, or None for the latter")
LOSS = Wanted("loss", Callable, "return a function of outputs and targets")  # type: ignore[arg-type]
OPTIMIZER = Wanted("optimizer", Optimizer, "return a torch.optim.Optimizer of the parameters", given=1)
METRIC = Wanted("metrics", object, "return a metric")
SCHEDULE = Wanted("schedule", lr_scheduler.LRScheduler, "return an LRScheduler of torch.optim", given=1)
"""What a user's factories are to return."""


def make_task(config: RunConfig) -> Task:
    """Build the model, data, loss, optimizer and schedule that are asked for.

    Raises:
        ConfigError: a name is unknown, a number impossible, a factory fails, or the data not there.
    """
    train, test = _data(config.data, config.training.seed)
    check_size(train, config.training.batch_size, "batch_size")
    drop_last = train.drops_last(config.training.drop_last) if isinstance(train, Reading) else True
    augment = config.data.name == "cifar10" if config.data.augment is None else config.data.augment
    model, source = _model(config, train.dataset if isinstance(train, Reading) else train)
    return Task(
        model=model,
        # Who has compared it with others, and does not read it, need not keep it.
        data=Later(partial(_again, config.data, config.training.seed, 0), train),
        loss=_loss(config.loss),
        optimizer=_optimizer(config),
        scheduler=_scheduler(config, _size(train, config.training.seed), drop_last),
        test=None if test is None else Later(partial(_again, config.data, config.training.seed, 1), test),
        augment=CropAndFlip() if augment else None,
        metrics=_metrics(config.metrics.names),
        source=source,
    )


def _data(asked: DataSettings, seed: int) -> tuple[Dataset[Any], Dataset[Any] | None]:
    if not is_path(asked.name):
        refuse_args(asked.args, asked.name, "data")
        train, test = load(asked.name, asked.folder, asked.context)
        return given(train), given(test)
    with drawing(CPU, seed, "data"):
        found = factory_of(asked.name, asked.args, DATA)()
    if len(found) != 2:
        raise ConfigError(
            f"the factory returns no pair of data sets (data: {asked.name}, it returns: {len(found)} values); "
            f"{DATA.remedy}"
        )
    for data in found[: 1 if found[1] is None else 2]:
        _check_set(data, asked.name)
    return given(found[0]), None if found[1] is None else given(found[1])


def _again(asked: DataSettings, seed: int, which: int) -> Dataset[Any]:
    """Make the training (0) or the test (1) set once more."""
    found = _data(asked, seed)[which]
    assert found is not None  # else there would be nothing to ask for
    return found


def _check_set(data: object, path: str) -> None:
    """Refuse what a factory of data returns in place of a data set."""
    remedy = ""
    if isinstance(data, DataLoader):
        return
    if isinstance(data, list | tuple | dict | str) or hasattr(data, "tolist"):  # tensors, and arrays of numpy
        remedy = "return torch.utils.data.TensorDataset(inputs, targets), or a Dataset of your own"
    elif not hasattr(data, "__getitem__") and not is_stream(data):
        remedy = "return an object with __getitem__ and __len__, such as a torch.utils.data.Dataset"
    if remedy:
        raise ConfigError(f"this is no data set (data: {path}, it returns: {type(data).__name__}); {remedy}")


def _size(data: Dataset[Any], seed: int) -> int | None:
    """Return the samples of an epoch; None where that is not known, or is told where batches are made."""
    if isinstance(data, Reading) and hasattr(data.dataset, "__len__"):
        return len(data.order.indices(len(data), seed, 0))
    return len(data) if not isinstance(data, Reading) and hasattr(data, "__len__") else None


def _model(config: RunConfig, data: Dataset[Any]) -> tuple[nn.Module, Source | None]:
    """Return the model, and where its values are if it has none."""
    asked, seed = config.model, config.training.seed
    if is_path(asked.name):
        make: Callable[[], nn.Module] = factory_of(asked.name, asked.args, MODEL)
    else:
        refuse_args(asked.args, asked.name, "model")
        make = partial(build, asked.name, _first_input(data, asked.name), _classes(data, asked.name))
    if asked.stagewise or asked.weights is not None:
        made = built(make, seed, asked.weights)
        return made.model, made.source
    with drawing(CPU, seed, "model"):
        return make(), None


def _first_input(data: Dataset[Any], name: str) -> Tensor:
    """Return what a model by name is built for.

    Raises:
        ConfigError: the data set is the user's and has none.
    """
    try:
        found = (next(iter(data)) if is_stream(data) else data[0])[0]
    except Exception as problem:  # the data set is the user's: anything can be raised
        raise ConfigError(f"the first sample cannot be read (model: {name}): {said(problem)}") from problem
    if not isinstance(found, Tensor):
        raise ConfigError(
            f"a model by name is for tensors (model: {name}, first input: {type(found).__name__}); return tensors, or "
            "take a model of your own"
        )
    return found


def _classes(data: Dataset[Any], name: str) -> int:
    """Return how many classes a data set says that it has, by its number or, like torchvision's, by their names."""
    classes = getattr(data, "classes", None)
    if classes is None:
        raise ConfigError(
            f"the data does not say how many classes it has (model: {name}); let it have an attribute classes, or take "
            "a model of your own"
        )
    return classes if isinstance(classes, int) else len(classes)


def _loss(asked: LossSettings) -> LossFunction:
    if not is_path(asked.name):
        refuse_args(asked.args, asked.name, "loss")
        if asked.name not in LOSSES:
            raise ConfigError(
                f"unknown loss (loss: {asked.name!r}); there is {' and '.join(LOSSES)}, and any factory, such as "
                "torch.nn:MSELoss"
            )
        return LOSSES[asked.name]()
    loss: LossFunction = factory_of(asked.name, asked.args, LOSS)()
    return loss


def _metrics(names: Sequence[str]) -> dict[str, Measure]:
    """Return metrics by the last parts of their names."""
    found = {name.rpartition(":")[2].rpartition(".")[2].lower(): _metric(name) for name in names}
    if len(found) < len(names):
        raise ConfigError(f"two metrics have the same name (metrics: {', '.join(names)}); give one of them another")
    return found


def _metric(name: str) -> Measure:
    if not is_path(name):
        if name != "perplexity":
            raise ConfigError(
                f"unknown metric (metrics: {name!r}); there is perplexity, and any function or class by its path, such "
                "as torchmetrics:MeanAbsoluteError"
            )
        return Perplexity()
    value = value_of(name, "metrics")
    if not callable(value):
        raise ConfigError(f"a metric is a function or a class (metrics: {name}, it is: {type(value).__name__})")
    found: Measure = factory_of(name, {}, METRIC)() if isinstance(value, type) else value
    return found


def _optimizer(config: RunConfig) -> OptimizerFactory:
    asked = config.optimizer
    if is_path(asked.name):
        return _own_optimizer(asked, asked.name)
    method = find(config.method.name)
    own = None if isinstance(method, ServerMethod) else method
    name = asked.name or ((own and own.optimizer) or "sgd").lower()
    if name not in OPTIMIZERS:
        raise ConfigError(unknown("optimizer", name, list(OPTIMIZERS)))
    refuse_args(asked.args, name, "optimizer")
    usual_momentum = 0.9 if own is None else own.momentum
    momentum = usual_momentum if asked.momentum is None else asked.momentum
    common: dict[str, Any] = {
        "lr": (0.05 if name == "sgd" else 0.002) if asked.lr is None else asked.lr,
        "weight_decay": 5e-4 if asked.weight_decay is None else asked.weight_decay,
    }
    if asked.decay not in DECAYS:
        raise ConfigError(unknown("decay", asked.decay, list(DECAYS)))
    if asked.nesterov and name != "sgd":
        raise ConfigError(f"nesterov is for sgd (optimizer: {name}); nadam is Adam with Nesterov's momentum")
    make = _named_optimizer(name, momentum, asked.nesterov, common)
    return make if asked.decay == "all" else partial(_decaying_matrices, make)


def _named_optimizer(name: str, momentum: float, nesterov: bool, common: dict[str, Any]) -> Callable[..., Optimizer]:
    if name == "sgd":
        return partial(torch.optim.SGD, momentum=momentum, nesterov=nesterov, **common)
    common["betas"] = (momentum, 0.999)
    if name == "nadam":
        return partial(torch.optim.NAdam, decoupled_weight_decay=True, **common)
    return partial(torch.optim.Adam if name == "adam" else torch.optim.AdamW, **common)


def _decaying_matrices(make: Callable[..., Optimizer], parameters: list[nn.Parameter]) -> Optimizer:
    """Make an optimizer with two groups, also where one is empty: schedules count them."""
    matrices, others = [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1]
    return make([{"params": matrices}, {"params": others, "weight_decay": 0.0}])


def _own_optimizer(asked: OptimizerSettings, path: str) -> OptimizerFactory:
    for field in ("momentum", "weight_decay"):
        if getattr(asked, field) is not None:
            raise ConfigError(
                f"{field} is of the optimizers that have a name (optimizer: {path}); give yours "
                f"--optimizer.args.{field}"
            )
    if asked.nesterov:
        raise ConfigError(f"nesterov is for sgd (optimizer: {path}); give yours --optimizer.args.nesterov true")
    if asked.decay != "all":
        raise ConfigError(
            f"decay is of the optimizers that have a name (optimizer: {path}, decay: {asked.decay}); let the first "
            "argument of yours be named_parameters, and choose by names and shapes"
        )
    rate = {} if asked.lr is None else {"lr": asked.lr}
    make = factory_of(path, {**rate, **asked.args}, OPTIMIZER)
    return partial(_with_names, make) if takes_names(make.args[0]) else make


def _with_names(make: partial[Optimizer], named_parameters: Named) -> Optimizer:
    """Say what a factory behind its checks takes."""
    return make(named_parameters)


def _scheduler(
    config: RunConfig, samples: int | None, drop_last: bool
) -> Callable[[Optimizer], lr_scheduler.LRScheduler] | None:
    asked = config.schedule
    if asked.milestones is not None and asked.name != "step":
        raise ConfigError(f"milestones are those of schedule step (schedule: {asked.name}); take step, or none")
    if is_path(asked.name):
        return factory_of(asked.name, asked.args, SCHEDULE)
    refuse_args(asked.args, asked.name, "schedule")
    if asked.name not in SCHEDULES:
        raise ConfigError(unknown("schedule", asked.name, list(SCHEDULES)))
    if asked.name == "constant":
        return None
    if config.training.largest < 1:
        raise ConfigError(f"batch_size must be at least 1, not {config.training.largest}")
    per_epoch = _updates_per_epoch(config, samples, drop_last)
    updates = updates_of(config.training, per_epoch)
    if asked.name == "cosine":
        return partial(lr_scheduler.CosineAnnealingLR, T_max=updates)
    if asked.name == "step":
        milestones = [updates // 2, 3 * updates // 4]
        if asked.milestones is not None:
            milestones = [round(epoch * (updates if per_epoch is None else per_epoch)) for epoch in asked.milestones]
        return partial(lr_scheduler.MultiStepLR, milestones=milestones)
    return partial(_one_cycle, updates=updates)


def _updates_per_epoch(config: RunConfig, samples: int | None, drop_last: bool) -> float | None:
    if samples is None:
        return None
    method, training = find(config.method.name), config.training
    if not isinstance(method, ServerMethod):
        return Division(samples, sum(training.sizes(grid_of(method, config.grid).groups)), drop_last).updates
    rules, _ = rules_of(config.servers, method)
    return updates_per_epoch(rules, Division(samples, sum(training.sizes(rules.learners)), drop_last).updates)


def _one_cycle(optimizer: Optimizer, updates: int) -> lr_scheduler.LRScheduler:
    # One step more than updates: the scheduler is stepped after the last update too.  Momentum stays the user's.
    rates = [group["lr"] for group in optimizer.param_groups]
    return lr_scheduler.OneCycleLR(optimizer, rates, total_steps=updates + 1, pct_start=0.3, cycle_momentum=False)
