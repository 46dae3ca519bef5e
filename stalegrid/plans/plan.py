"""A run made definite: every choice settled and checked before any process starts.

Does not know: engines, processes, files.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch.optim import Optimizer

from stalegrid.config import Settings
from stalegrid.consensus.lateral import make_lateral, mixing_name
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import MEAN, PARAMETERS, PART, AllReduce, Averaging
from stalegrid.data import Slices
from stalegrid.errors import ConfigError
from stalegrid.methods import methods
from stalegrid.methods.methods import Method
from stalegrid.objects.aliases import check_followed
from stalegrid.observe.records import Report
from stalegrid.observe.state import check_saved
from stalegrid.partition import Partition, partition
from stalegrid.plans.devices import Devices, settle_devices
from stalegrid.plans.material import cast_model, check_data, check_optimizer, check_test, make_batches, make_test
from stalegrid.plans.probe import Probed, probe
from stalegrid.plans.task import Task
from stalegrid.plans.unequal import tell_unequal
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.messages import Layout, flat_layout
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule
from stalegrid.programs.watch import Watch
from stalegrid.seeds import drawing
from stalegrid.stages.corrections import Maker, makers, ruled
from stalegrid.stages.views import View, find_view
from stalegrid.stages.weights import StageLayout, Weights
from stalegrid.timing.clock import TimeModel
from stalegrid.timing.costs import CostTable
from stalegrid.written.numbers import whole


@dataclass(frozen=True)
class Plan:
    """What every process of a run agrees on.

    Args:
        method: the published method.
        view: which weights a late backward sees.
        mixing: what groups exchange.
        program: what is due.
        partition: where the model is cut.
        stages: how the vectors of each stage read.
        updates_per_epoch: of a group.
        mix_momentum: whether momentum buffers are mixed too.
        trainable: elements that each stage's optimizer updates, without padding.
        held: bytes that each stage holds at most for batches in flight: graphs, inputs, copies of the parameters.
        devices: what is known of them.
    """

    method: Method
    view: str
    mixing: str
    program: Program
    partition: Partition
    stages: tuple[StageLayout, ...]
    updates_per_epoch: int
    mix_momentum: bool
    trainable: tuple[int, ...]
    held: tuple[int, ...]
    devices: Devices

    @property
    def grid(self) -> Grid:
        """The units."""
        return self.program.grid

    @property
    def schedule(self) -> Schedule:
        """How far stages run ahead."""
        return self.program.schedule

    @property
    def owners(self) -> list[list[Unit]]:
        """The units that have a replica of each stage."""
        return [[Unit(s, k) for s in range(self.grid.groups)] for k in range(self.grid.stages)]

    @property
    def spectral_gap(self) -> float | None:
        """How much closer to their mean the groups come in a mixing turn; None where parameters are not mixed."""
        lateral = self.program.lateral
        return lateral.mixing.spectral_gap if isinstance(lateral, Averaging) else None

    @property
    def time_model(self) -> TimeModel | None:
        """What actions take and messages weigh; None where no costs are known."""
        return None if self.devices.costs is None else self.devices.time_model(self.program, self.nbytes)

    def nbytes(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge."""
        return sum(spec.nbytes for spec in self.layout(edge))

    def layout(self, edge: Edge) -> Layout:
        """Return what every message of an edge consists of."""
        stage = edge.source.stage
        read = self.stages[stage]
        match edge.name:
            case "activation":
                return self.partition.layouts[stage]
            case "gradient":
                floating = tuple(s for s in self.partition.layouts[stage - 1] if s.dtype.is_floating_point)
                return floating + flat_layout(len(floating), torch.uint8)
            case "report":
                return Report.layout(self.schedule.bound(stage))
            case "snapshot":
                counters = sum(math.prod(shape) for _, shape in read.counters)
                return flat_layout(read.numel, read.dtype) + flat_layout(counters, torch.int64)
        if edge.name == PARAMETERS:
            return flat_layout(read.mixed + self.mix_momentum * self.trainable[stage], read.dtype)
        owner = {PART: edge.target.group, MEAN: edge.source.group}[edge.name]
        size, rest = divmod(self.trainable[stage] + read.parameters, self.grid.groups)
        return flat_layout(size + (owner < rest), read.dtype)


@drawing(torch.device("cpu"), 0, "plan")
def make_plan(task: Task, settings: Settings, table: CostTable | None = None) -> Plan:
    """Settle and check every choice of a run.

    Args:
        task: what is trained.
        settings: how.
        table: what the model costs; what the settings name if left out.

    Raises:
        ConfigError: something cannot be run; the message says what, its value, and the remedy.
    """
    method = methods.find(settings.method)
    refuse(settings, SERVED, f"{method.name} trains a grid; learners are those of hardsync, softsync and asgd")
    grid = grid_of(settings)
    micro = method.micro_batches if settings.micro_batches is None else settings.micro_batches
    view = find_view(method.view if settings.view is None else settings.view)
    devices, cuts = settle_devices(settings, grid, table)
    corrections = corrections_of(chosen_corrections(method.corrections, settings), task, settings)
    batches = make_batches(task, settings, grid, micro)
    check_data(task, settings)
    updates = updates_of(settings, batches.updates_per_epoch)
    mixing = mixing_name(method, settings, grid)
    lateral = make_lateral(mixing, settings, grid, updates)
    staleness = settings.staleness
    if staleness == "auto":
        staleness = devices.enough_staleness(
            method, grid, view, micro, partial(make_lateral, mixing, settings, grid), settings.within
        )
    schedule = methods.schedule(method, grid.stages, staleness, settings.queues, micro, view.delay)
    view.check(schedule)
    if grid.stages > 1:
        check_followed(task.model)
    model, test = cast_model(task, settings), make_test(task, settings)
    check_optimizer(task, model)
    watch = make_watch(test, settings, batches.updates_per_epoch)
    program = Program(grid, schedule, updates, lateral, watch, view.recomputes)
    cut = partition(model, batches.inputs(0, 0), grid.stages, cuts)
    first = batches.inputs(0, 0), batches.targets(0, 0), partial(batches.indices, 0, 0)
    probed = probe(task, program, view, corrections, cut.stages(model), *first)
    check_saved(model)
    check_test(task, model, test)
    tell_unequal(task.loss, batches, grid.groups if isinstance(lateral, AllReduce) else 1, test)
    _check_optimizer(method, probed[0].optimizer)
    stale = any(schedule.bound(k) for k in range(grid.stages))
    if stale or corrections or isinstance(lateral, AllReduce):
        for found in probed:
            refuse_sparse(found, "late gradients, corrections and all-reduce work on whole ones")
    corrections_read = any(p.reads_forwarded for p in probed)
    weights = [p.weights for p in probed]
    mix_momentum = settings.mix_momentum and isinstance(lateral, Averaging)
    if mix_momentum:
        _check_momentum(task, weights)
    return Plan(
        method,
        method.view if settings.view is None else settings.view,
        mixing,
        program,
        cut,
        tuple(StageLayout.of(w) for w in weights),
        batches.updates_per_epoch,
        mix_momentum,
        tuple(sum(p.numel() for p in w.trainable()) for w in weights),
        tuple(_held(schedule, k, view, settings.gap, corrections_read, p) for k, p in enumerate(probed)),
        devices,
    )


SERVED = ("learners", "servers", "softsync", "max_staleness", "momentum_at", "deliveries")
"""Settings of the methods with parameter servers."""


def refuse(settings: Settings, names: Sequence[str], why: str) -> None:
    """Refuse settings that a method has no use for.

    Args:
        settings: of the run.
        names: which must be left out.
        why: said with the error.

    Raises:
        ConfigError: one of them was given.
    """
    usual = {field.name: field.default for field in dataclasses.fields(Settings)}
    for name in names:
        if (value := getattr(settings, name)) != usual[name]:
            raise ConfigError(f"{why} ({name}: {value}); leave {name} out")


def settle(plan: Plan, settings: Settings) -> Settings:
    """Write a plan's choices into settings, so that they run the same way again."""
    schedule = plan.schedule
    return dataclasses.replace(
        settings,
        groups=plan.grid.groups,
        stages=plan.grid.stages,
        staleness=[w - 1 for w in schedule.windows] if plan.method.stale else None,
        queues=None,
        view=plan.view,
        mixing=plan.mixing,
        corrections=chosen_corrections(plan.method.corrections, settings),
        staleness_rule=None,
        micro_batches=schedule.micro_batches,
        cuts=list(plan.partition.names),
    )


def chosen_corrections(usual: Sequence[str], settings: Settings) -> list[str]:
    """Return the corrections or the rule that the user named, or a method's own.

    Raises:
        ConfigError: both are named, or there is no such rule.
    """
    if settings.staleness_rule is None:
        return list(usual if settings.corrections is None else settings.corrections)
    if settings.corrections is not None:
        raise ConfigError(
            f"a staleness rule is a correction (staleness_rule: {settings.staleness_rule}, corrections: "
            f"{','.join(settings.corrections)}); name one of the two"
        )
    return ruled(settings.staleness_rule)


def corrections_of(texts: Sequence[str], task: Task, settings: Settings) -> tuple[Maker, ...]:
    """Return the named corrections, then the user's own, then the clipping of what they made.

    Raises:
        ConfigError: a name is unknown or its number is none.
    """
    named = makers(texts)
    clip = () if settings.clip is None else makers([f"clip={settings.clip}"])
    return (*named, *task.corrections, *clip)


def grid_of(settings: Settings) -> Grid:
    """Return the grid that is asked for, or the method's own.

    Raises:
        ConfigError: the method does not run on such a grid.
    """
    method = methods.find(settings.method)
    groups = method.shape[0] if settings.groups is None else settings.groups
    stages = method.shape[1] if settings.stages is None else settings.stages
    if method.max_groups is not None and groups > method.max_groups:
        raise ConfigError(f"{method.name} trains one group (groups: {groups}); for more use data-parallel or pham-ahn")
    if method.max_stages is not None and stages > method.max_stages:
        raise ConfigError(f"{method.name} does not cut the model (stages: {stages}); use gpipe, 1f1b or pham-ahn")
    return Grid(groups, stages)


def updates_of(settings: Settings, updates_per_epoch: float) -> int:
    """Return N, the updates of every unit.

    Raises:
        ConfigError: there would be none, or more than can be counted.
    """
    updates = round(settings.epochs * updates_per_epoch) if settings.updates is None else settings.updates
    if updates < 1:
        raise ConfigError(
            f"the run has no update (epochs: {settings.epochs}, updates: {settings.updates}); train longer"
        )
    if not whole(updates):
        raise ConfigError(f"the run would never end (epochs: {settings.epochs}); train fewer")
    return updates


def _held(schedule: Schedule, stage: int, view: type[View], gap: bool, read: bool, probed: Probed) -> int:
    kept, bound = view.kept(schedule, stage), schedule.bound(stage)
    copies = kept.copies
    if not view.holds:
        copies += bound if read else int(gap and bound > 0)
    weights = probed.weights
    return kept.graphs * probed.graph + kept.inputs * probed.inputs + copies * weights.trained * weights.flat.itemsize


def _check_optimizer(method: Method, optimizer: Optimizer) -> None:
    if method.optimizer is not None and not isinstance(optimizer, getattr(torch.optim, method.optimizer)):
        raise ConfigError(
            f"{method.name} is defined by its optimizer (optimizer: {type(optimizer).__name__}); take "
            f"torch.optim.{method.optimizer}"
        )


def make_watch(test: Slices | None, settings: Settings, updates_per_epoch: float) -> Watch:
    """Return what the observer sees.

    Raises:
        ConfigError: a frequency has no meaning.
    """
    if settings.log_every < 1:
        raise ConfigError(f"reports come every so many updates, at least 1 (log_every: {settings.log_every})")
    if settings.evaluate_every < 0:
        raise ConfigError(f"evaluations come every so many epochs (evaluate_every: {settings.evaluate_every})")
    every = max(1, round(settings.evaluate_every * updates_per_epoch)) if settings.evaluate_every else None
    return Watch(settings.log_every, every, 0 if test is None else len(test))


def refuse_sparse(found: Probed, why: str) -> None:
    """Refuse a stage whose parameters get sparse gradients.

    Args:
        found: what came of its trial.
        why: said with the error.

    Raises:
        ConfigError: one does.
    """
    if found.sparse is not None:
        raise ConfigError(
            f"a gradient is sparse, but {why} (parameter: {found.sparse}); make the layer with sparse=False"
        )


def _check_momentum(task: Task, weights: Sequence[Weights]) -> None:
    for stage in weights:
        Momentum(task.fresh().optimizer(stage.trainable()), stage.trainable())
