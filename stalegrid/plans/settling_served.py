"""How the plan of a run of learners and parameter servers comes about, step by step.

Does not know: engines, processes.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from stalegrid.data import Batches, Stream, TrainingSettings, examples
from stalegrid.errors import ConfigError
from stalegrid.methods import ServerMethod, find
from stalegrid.objects import copied
from stalegrid.observe import check_saved
from stalegrid.partition import partition, split
from stalegrid.plans.choices import (
    Choices,
    chosen_corrections,
    end_of,
    make_watch,
    refuse,
    refuse_sparse,
    updates_of,
)
from stalegrid.plans.compiling import refuse_compiling
from stalegrid.plans.devices import Devices, settle_devices
from stalegrid.plans.material import (
    check_data,
    check_last,
    check_optimizer,
    check_precision,
    check_test,
    make_batches,
    make_test,
    precision_of,
    whole_model,
)
from stalegrid.plans.measured import check_measured
from stalegrid.plans.served import ServedPlan, Shapes
from stalegrid.plans.sorting import check_sorting
from stalegrid.plans.staged import PIPELINE, SHARED
from stalegrid.plans.task import Task
from stalegrid.plans.trials import CPU, Probed, probe, widest
from stalegrid.plans.unequal import tell_unequal
from stalegrid.programs import (
    DOOR,
    Grid,
    Live,
    Ordered,
    Program,
    Rules,
    Served,
    ServerSettings,
    gpipe,
    in_turn,
    read_order,
)
from stalegrid.seeds import drawing
from stalegrid.stages import Current, Maker, StageLayout, kinds_of, makers, parts_of
from stalegrid.timing import Cost, CostTable, DeviceTable, ServedTimes, drawn

LEARNERS = 4
"""As many as there are where the user names no number."""

NOMINAL = Cost(forward=1.0, backward=2.0)
"""What a batch costs on the simulator where no costs are known: only the order of arrivals follows from it."""

GRID = {
    "method": ("staleness", "queues", "view", "micro_batches", "reduction"),
    "devices": ("lateral_link",),
    "training": ("targets",),
}
"""Settings of the methods that train a grid, beside those of the grid and of what its groups exchange."""


@drawing(torch.device("cpu"), 0, "plan")
def make_served_plan(
    task: Task, asked: Choices, table: CostTable | DeviceTable | None = None, *, virtual: bool = False
) -> ServedPlan:
    """Settle and check every choice of a run; see :func:`stalegrid.plans.settling.make_plan`."""
    method = find(asked.method.name)
    assert isinstance(method, ServerMethod)
    _refuse_grid(asked, method)
    training = asked.training
    rules, splits = rules_of(asked.servers, method)
    batches = make_batches(task, training, rules.learners, 1)
    check_data(task, training, batches)
    share = batches.updates_per_epoch
    of_epoch = None if share is None else updates_per_epoch(rules, share)
    updates = updates_of(training, of_epoch)
    per_epoch = updates if of_epoch is None else of_epoch
    end = end_of(training, updates)
    model, test = whole_model(task, training), make_test(task, training)
    check_optimizer(task, model)
    refuse_compiling(training, f"stages of a grid are compiled, and {method.name} has learners of the whole model")
    check_precision(model, training)
    watch = make_watch(test, asked.output, per_epoch)
    _refuse_measuring(asked, method)
    corrections = chosen_corrections(method.corrections, asked.method)
    # One that is alone in running ahead makes all gradients, and may have begun with one that nobody takes.
    most = end if method.synchronous else end * rules.gather + 1
    found = _probe(task, training, model, served_makers(corrections), updates, batches, most)
    if not found.sums:
        _check_equal(method, rules, batches)
    if found.sums and asked.servers.momentum_at == "learner":
        raise ConfigError(
            "the loss is a sum and a count, and learners with momentum add up gradients of several batches before "
            "servers divide (momentum_at: learner); take momentum_at server, or a loss that is a mean"
        )
    check_saved(model)
    with precision_of(training).on(CPU):
        check_test(task, model, test)
        check_measured(task, model, test, asked.output.best)
    tell_unequal(task.loss, batches, rules.gather, test, sums=found.sums)
    reported = rules.gather * min(watch.report_every, updates) + rules.learners
    shapes = _shapes(task, model, asked.servers.number, found, reported)
    devices, known = _devices(asked, method, rules, table, virtual=virtual)
    times = _times(devices, shapes)
    blank = Served(rules, asked.servers.number, end, watch)
    program = _program(blank, asked.servers, method, times, virtual)
    return ServedPlan(
        method,
        splits,
        program,
        shapes,
        updates,
        per_epoch,
        devices,
        times if known else None,
        _momentum(task, model) if asked.servers.momentum_at == "learner" else None,
        corrections,
        training,
        found.sums,
        batches.numbers.apart(),
    )


def _refuse_grid(asked: Choices, method: ServerMethod) -> None:
    why = f"{method.name} trains learners with parameter servers, not a grid"
    for group in (asked.grid, asked.mixing, asked.codec):
        refuse(group, why)
    for name, fields in GRID.items():
        refuse(getattr(asked, name), why, fields)
    asked.training.check_alike(f"{why}: servers take every gradient for as much as any other")


def _refuse_measuring(asked: Choices, method: ServerMethod) -> None:
    if asked.output.evaluation in (SHARED, PIPELINE):
        raise ConfigError(
            f"learners have the whole model, and {method.name} has no stages to measure it (output.evaluation: "
            f"{asked.output.evaluation}); leave evaluation out"
        )
    if asked.output.js_distance:
        raise ConfigError(
            f"learners have no models of their own to be apart (method: {method.name}, output.js_distance: true); "
            "leave it out"
        )
    if asked.output.diagnose:
        raise ConfigError(
            f"a diagnosis is of a grid, whose staleness is known beforehand (method: {method.name}, output.diagnose: "
            f"{asked.output.diagnose}); learners are as late as they happen to be; leave it out"
        )


def _shapes(task: Task, model: nn.Module, servers: int, found: Probed, reported: int) -> Shapes:
    weights = found.weights
    shards = split(model, servers, StageLayout.of(weights).names)
    own = dict(model.named_parameters())
    check_sorting(task, ({name: own[name] for name in shard.names} for shard in shards))
    return Shapes(shards, weights.counted().numel(), reported, weights.flat.dtype)


def _devices(
    asked: Choices, method: ServerMethod, rules: Rules, table: CostTable | DeviceTable | None, *, virtual: bool
) -> tuple[Devices, bool]:
    """Return what is known of the devices, and whether it is what a batch costs."""
    known = table is not None or asked.devices.costs is not None
    if virtual and not known:
        table = CostTable(max(1, asked.training.largest), (NOMINAL,))
    grid = Grid(rules.learners, 1)
    devices, _ = settle_devices(asked.devices, grid, None, asked.training, table, virtual=virtual)
    if devices.unequal is not None:
        raise ConfigError(
            f"a table of devices is for grids, and has no links to servers (method: {method.name}, devices: "
            f"{rules.learners}); give the costs of one device, and --devices.slow for learners that are slower"
        )
    return devices, known


def rules_of(asked: ServerSettings, method: ServerMethod) -> tuple[Rules, int]:
    """Return when servers update and whom they answer, and n.

    Raises:
        ConfigError: a number is out of its range, or not the method's to choose.
    """
    learners = LEARNERS if asked.learners is None else asked.learners
    if learners < 1:
        raise ConfigError(f"there must be a learner (learners: {learners}); take 1 or more")
    splits = learners if method.splits is None else method.splits
    if asked.softsync not in (None, splits) and not method.free:
        raise ConfigError(f"{method.name} has no n of its own (softsync: {asked.softsync}); take method softsync")
    splits = splits if asked.softsync is None else asked.softsync
    if not 1 <= splits <= learners:
        raise ConfigError(
            f"an update averages over learners/n gradients, n from 1 to the learners (softsync: {splits}, learners: "
            f"{learners})"
        )
    bound = 0 if method.synchronous else asked.max_staleness
    if asked.max_staleness is not None and (asked.max_staleness < 0 or method.synchronous):
        raise ConfigError(
            f"a staleness bound is 0 or more, and hardsync's is 0 (method: {method.name}, max_staleness: "
            f"{asked.max_staleness})"
        )
    return Rules(learners, learners // splits, bound), splits


def updates_per_epoch(rules: Rules, batches: int) -> float:
    """Return how many updates take so many batches of every learner."""
    return rules.learners * batches / rules.gather


def served_makers(corrections: Sequence[str | Maker]) -> tuple[Maker, ...]:
    """Return what makes the corrections of a server.

    Raises:
        ConfigError: one has no meaning here.
    """
    named = {c.partition("=")[0].strip() for c in corrections if isinstance(c, str)}
    if "shrink" in named:
        raise ConfigError("shrink scales what a stage receives, and learners have no stages; leave it out")
    if "error-feedback-by-staleness" in named:
        raise ConfigError(
            "an update of a server has no staleness of its own, each of its gradients has "
            "(corrections: error-feedback-by-staleness); take error-feedback"
        )
    return makers(corrections)


def server_optimizer(task: Task, momentum: float | None) -> Callable[[Iterable[tuple[str, nn.Parameter]]], Optimizer]:
    """Return what makes the optimizer of a server: without momentum where the learners have it."""

    def make(named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        optimizer = task.optimizer_of(named)
        if momentum is not None:
            for group in optimizer.param_groups:
                group["momentum"] = 0.0
        return optimizer

    return make


def _momentum(task: Task, model: nn.Module) -> float:
    task = task.fresh()
    named = [(n, p) for n, p in copied(model).named_parameters() if p.requires_grad]
    optimizer = task.optimizer_of(named)
    groups = optimizer.param_groups
    plain = all(isinstance(own, SGD) for own in parts_of(optimizer))
    plain = plain and not any(g["nesterov"] or g["dampening"] for g in groups)
    if not plain or len({g["momentum"] for g in groups}) > 1 or not groups[0]["momentum"]:
        raise ConfigError(
            f"learners can have the momentum of SGD, not of Nesterov's, dampened or of other optimizers (optimizer: "
            f"{kinds_of(optimizer)}, momentum_at: learner); take momentum_at server"
        )
    momentum = float(groups[0]["momentum"])
    _check_steady(task, server_optimizer(task, momentum)(named))
    return momentum


def _check_steady(task: Task, optimizer: Optimizer) -> None:
    """Check that the schedule does not give a server back the momentum that the learners have."""
    scheduler = task.scheduler_of(optimizer)
    if scheduler is None:
        return
    optimizer.step()
    scheduler.step()
    if any(group["momentum"] for group in optimizer.param_groups):
        raise ConfigError(
            f"the schedule sets the momentum too (scheduler: {type(scheduler).__name__}, momentum_at: learner); take "
            "momentum_at server, or a schedule that leaves it alone, such as OneCycleLR with cycle_momentum=False"
        )


def _probe(
    task: Task,
    training: TrainingSettings,
    model: nn.Module,
    corrections: Sequence[Maker],
    updates: int,
    batches: Batches | Stream,
    most: int,
) -> Probed:
    """Try one update of the whole model on a copy, with batches of which a learner computes at most so many."""
    each = examples(batches, training, most, cut=False, targets=False)
    precision = precision_of(training)
    with precision.on(CPU):
        check_last(model, batches.form, each, batches.sizes.whole)
        stages = partition(model, each[0].inputs, 1, form=batches.form).stages(copied(model))
    program, form = Program(Grid(1, 1), gpipe(1, 1), updates), batches.form
    trial = partial(probe, task, program, Current, corrections, stages, form=form, learning=True, precision=precision)
    (found,) = widest([trial(one.inputs, one.targets, one.samples) for one in each])
    refuse_sparse(found, "servers average gradients as one vector")
    return found


def _check_equal(method: ServerMethod, rules: Rules, batches: Batches | Stream) -> None:
    """Refuse updates that average over the gradients of a whole batch and of a smaller one."""
    rest = batches.division.rest if isinstance(batches, Batches) and batches.division.whole else 0
    if rest and rules.gather > 1 and not method.synchronous:
        raise ConfigError(
            f"learners that run ahead come to the incomplete last batch of an epoch at different times (method: "
            f"{method.name}, samples: {rest}), and an update would average its gradient with those of whole batches, "
            "with equal weights; drop it (drop_last=True in the DataLoader, or training.drop_last: true), let the loss "
            "return its sum and what that counts, or take hardsync or asgd"
        )


def _times(devices: Devices, shapes: Shapes) -> ServedTimes | None:
    if devices.costs is None:
        return None
    elements = [shard.stop - shard.start for shard in shapes.shards]
    shares = tuple(numel / max(1, sum(elements)) for numel in elements)
    return ServedTimes(devices.costs, 1, devices.handling, shapes.nbytes, devices.disturbances, shares)


def _program(
    blank: Served, asked: ServerSettings, method: ServerMethod, times: ServedTimes | None, virtual: bool
) -> Served:
    """Complete a program with its order, or leave that to the network."""
    parts = (blank.rules, blank.servers, blank.updates, blank.watch)
    if asked.deliveries is not None:
        if not virtual:
            raise ConfigError("a record is repeated on the simulator (deliveries); take engine simulator")
        return _repeated(blank, asked.deliveries)
    if method.synchronous:
        return Ordered(*parts, in_turn(blank.rules, blank.updates))
    if not virtual:
        return Live(*parts)
    assert times is not None
    return Ordered(*parts, drawn(blank, times))


def _repeated(blank: Served, record: Path) -> Ordered:
    order = read_order(record, blank.rules)
    taken = sum(not delivery.gone for delivery in order)
    updates = min(blank.updates, taken // blank.rules.gather)
    if not updates:
        raise ConfigError(f"the record holds no whole update (deliveries: {record}, gradients: {taken})")
    program = Ordered(blank.rules, blank.servers, updates, blank.watch, order)
    for _ in program.actions(DOOR):  # an order of another run shows on the way, before anything starts
        pass
    return program
