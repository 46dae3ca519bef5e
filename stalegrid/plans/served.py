"""A run of learners and parameter servers made definite: every choice settled and checked before any process starts.

Does not know: engines, processes.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim import SGD, Optimizer

from stalegrid.data import Batches, Counted, Numbers, Owned, Stream, TrainingSettings, examples
from stalegrid.errors import ConfigError
from stalegrid.methods import ServerMethod, find
from stalegrid.objects import copied
from stalegrid.observe import Saved, Takes, check_saved
from stalegrid.partition import Shard, partition, split
from stalegrid.plans.choices import (
    C,
    Choices,
    chosen_corrections,
    end_of,
    make_watch,
    refuse,
    refuse_sparse,
    settled,
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
from stalegrid.plans.membership import Membership
from stalegrid.plans.probe import CPU, Probed, probe, widest
from stalegrid.plans.sorting import check_sorting
from stalegrid.plans.staged import PIPELINE, SHARED
from stalegrid.plans.task import Task
from stalegrid.plans.unequal import tell_unequal
from stalegrid.programs import (
    DOOR,
    Edge,
    Grid,
    Layout,
    Led,
    Live,
    Ordered,
    Program,
    Rules,
    Saves,
    Served,
    ServerSettings,
    Unit,
    flat_layout,
    gpipe,
    in_turn,
    order_before,
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


@dataclass(frozen=True)
class Shapes:
    """What messages consist of.

    Args:
        shards: what each server has.
        counters: elements of the model's buffers of whole numbers.
        reported: gradients, and learners found to be gone, between two reports at most.
        dtype: of parameters.
    """

    shards: tuple[Shard, ...]
    counters: int
    reported: int
    dtype: torch.dtype

    def layout(self, edge: Edge) -> Layout:
        """Return what every message of an edge consists of."""
        match edge.name:
            case "push":
                shard = self.shards[edge.target.stage]
                numel = shard.stop - shard.start + shard.buffers
                return (
                    flat_layout(numel, self.dtype)
                    + self._counted(edge.target.stage)
                    + flat_layout(4, torch.float64)
                    + flat_layout(len(shard.names), torch.uint8)
                )
            case "weights":
                shard = self.shards[edge.source.stage]
                return flat_layout(shard.stop - shard.start, self.dtype)
            case "turn":
                return flat_layout(2, torch.int64)
            case "report":
                return Takes.layout(self.reported)
        assert edge.name == "snapshot"
        shard = self.shards[edge.source.stage]
        return flat_layout(shard.layout.numel, self.dtype) + self._counted(edge.source.stage)

    def nbytes(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge."""
        return sum(spec.nbytes for spec in self.layout(edge))

    def _counted(self, server: int) -> Layout:
        return flat_layout(0 if server else self.counters, torch.int64)


@dataclass(frozen=True)
class ServedPlan:
    """What every process of a run agrees on.

    Args:
        method: the published method.
        splits: n; a gradient usually is about so stale.
        program: what is due.
        shapes: what messages consist of.
        updates: of the whole run; a record that is repeated may hold fewer.
        updates_per_epoch: updates that take as many samples as the training data has.
        devices: what is known of them.
        time_model: what actions take and messages weigh; None where no costs are known.
        momentum: of each learner; None where the server has it.
        corrections: of every gradient.
        training: how much.
        sums: whether the loss is a sum and what it counts.
        numbers: of the samples of each learner's batches; None where only the data itself can tell.
    """

    method: ServerMethod
    splits: int
    program: Served
    shapes: Shapes
    updates: int
    updates_per_epoch: float
    devices: Devices
    time_model: ServedTimes | None
    momentum: float | None
    corrections: tuple[str | Maker, ...]
    training: TrainingSettings
    sums: bool = False
    numbers: Numbers | Owned | Counted | None = None

    @property
    def saves_parts(self) -> tuple[Saved, ...]:
        """What each stage saves of the model: nothing, since the observer saves it."""
        return ()

    @property
    def rules(self) -> Rules:
        """When servers update, and whom they answer."""
        return self.program.rules

    @property
    def grid(self) -> Grid:
        """The learners, which are groups of one stage."""
        return Grid(self.rules.learners, 1)

    @property
    def stages(self) -> tuple[StageLayout, ...]:
        """How the vectors of the servers read."""
        return tuple(shard.layout for shard in self.shapes.shards)

    @property
    def owners(self) -> list[list[Unit]]:
        """The server that has each shard."""
        return [[shard] for shard in self.program.shards]

    def saved(self, saves: Saves) -> "ServedPlan":
        """Return the plan of the same run that is saved, or goes on from a save; see also :meth:`after`."""
        return dataclasses.replace(self, program=dataclasses.replace(self.program, saves=saves))

    def after(self, record: Path, version: int, *, live: bool) -> "ServedPlan":
        """Return the plan of a run that has taken gradients before, in an order that is known.

        Args:
            record: of its deliveries.
            version: that it goes on from.
            live: whether the network made that order.

        Raises:
            ConfigError: the record cannot be read or ends before, or the run would go on in another order.
        """
        order = order_before(read_order(record, self.rules), self.rules, version)
        if len(order) == 0:
            raise ConfigError(
                f"the record of deliveries ends before the checkpoint (deliveries: {record}, version: {version}); put "
                "the file back"
            )
        if isinstance(self.program, Ordered):
            if list(self.program.order[: len(order)]) != order:
                raise ConfigError(
                    f"the run has taken gradients in another order than this engine would (deliveries: {record}, "
                    f"version: {version}); go on with engine processes, whose order the network makes"
                )
            return self
        if not live:
            raise ConfigError(
                f"the order of the run was drawn in virtual time, and nobody knows what is under way in another one "
                f"(deliveries: {record}, version: {version}); go on with engine simulator"
            )
        return dataclasses.replace(self, program=dataclasses.replace(self.program, order=order))

    def among(self, membership: Membership) -> "ServedPlan":
        """Return the plan: learners that are gone are no matter of it."""
        assert not membership.lost
        return self

    def epochs(self, version: int) -> float:
        """Return how many passes over the data were trained up to a version."""
        return version / self.updates_per_epoch

    @property
    def askable(self) -> bool:
        """Whether somebody may ask it to be saved, or to leave, at a version that was not planned."""
        return not (isinstance(self.program, Ordered) and any(delivery.gone for delivery in self.program.order))

    def ended_at(self, version: int | None) -> "ServedPlan":
        """Return the plan: nothing ends such a run early."""
        return self

    def stoppable(self, *, ends: bool = True, asks: bool = False) -> "ServedPlan":
        """Return the plan of the same run where somebody may ask it to be saved, or to leave.

        Args:
            ends: whether a callback may end it early.
            asks: whether somebody may ask.

        Raises:
            ConfigError: a callback may end it.
        """
        if ends:
            raise ConfigError(
                f"a callback cannot end a run with servers early (method: {self.method.name}); let none ask for it "
                "(stops = False), or train a grid"
            )
        program = self.program
        if isinstance(program, Ordered):
            return dataclasses.replace(self, program=Led.of(program))
        assert isinstance(program, Live)
        return dataclasses.replace(self, program=dataclasses.replace(program, asks=asks))

    def layout(self, edge: Edge) -> Layout:
        """Return what every message of an edge consists of."""
        says = isinstance(self.program, Live) and self.program.says_asked(edge)
        return self.shapes.layout(edge) + (flat_layout(1, torch.int64) if says else ())

    def layouts(self, edge: Edge) -> tuple[Layout, ...]:
        """Return what a message of an edge may consist of, which is one thing; see :meth:`layout`."""
        return (self.layout(edge),)

    def settled(self, asked: C) -> C:
        """Write the plan's choices into what was asked for, so that it runs the same way again."""
        servers = dataclasses.replace(asked.servers, learners=self.rules.learners, softsync=self.splits)
        return dataclasses.replace(settled(asked, self.corrections), servers=servers)


@drawing(torch.device("cpu"), 0, "plan")
def make_served_plan(
    task: Task, asked: Choices, table: CostTable | DeviceTable | None = None, *, virtual: bool = False
) -> ServedPlan:
    """Settle and check every choice of a run; see :func:`stalegrid.plans.settling.make_plan`."""
    method = find(asked.method.name)
    assert isinstance(method, ServerMethod)
    why = f"{method.name} trains learners with parameter servers, not a grid"
    for group in (asked.grid, asked.mixing, asked.codec):
        refuse(group, why)
    for name, fields in GRID.items():
        refuse(getattr(asked, name), why, fields)
    training = asked.training
    training.check_alike(f"{why}: servers take every gradient for as much as any other")
    rules, splits = rules_of(asked.servers, method)
    grid = Grid(rules.learners, 1)
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
    corrections = chosen_corrections(method.corrections, asked.method)
    # One that is alone in running ahead makes all gradients, and may have begun with one that nobody takes.
    most = end if method.synchronous else end * rules.gather + 1
    found = _probe(task, training, model, served_makers(corrections), updates, batches, most)
    if not found.sums:
        _check_equal(method, rules, batches)
    weights = found.weights
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
    shards = split(model, asked.servers.number, StageLayout.of(weights).names)
    own = dict(model.named_parameters())
    check_sorting(task, ({name: own[name] for name in shard.names} for shard in shards))
    shapes = Shapes(shards, weights.counted().numel(), reported, weights.flat.dtype)
    known = table is not None or asked.devices.costs is not None
    if virtual and not known:
        table = CostTable(max(1, training.largest), (NOMINAL,))
    devices, _ = settle_devices(asked.devices, grid, None, training, table, virtual=virtual)
    if devices.unequal is not None:
        raise ConfigError(
            f"a table of devices is for grids, and has no links to servers (method: {method.name}, devices: "
            f"{rules.learners}); give the costs of one device, and --devices.slow for learners that are slower"
        )
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
