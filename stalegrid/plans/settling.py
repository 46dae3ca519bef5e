"""How the plan of a run on a grid comes about, step by step; each step knows what those before it have settled.

Does not know: engines, processes, files.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from torch import nn

from stalegrid.codecs import chosen
from stalegrid.consensus import (
    Mixing,
    MixingSettings,
    Turns,
    Vectors,
    check_mixing,
    check_turns,
    choose_mixing,
    has_name,
    turns_of,
)
from stalegrid.data import Batches, Example, Slices, Stream, examples
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, Reduction, find_grid
from stalegrid.methods import schedule as schedule_of
from stalegrid.objects import check_followed, shapes_of
from stalegrid.observe import check_saved
from stalegrid.partition import Partition, partition
from stalegrid.plans.choices import Choices, chosen_corrections, end_of, make_watch, refuse, updates_of
from stalegrid.plans.coded import check_codecs
from stalegrid.plans.compiling import check_compiling
from stalegrid.plans.devices import Devices, cutting, settle_devices
from stalegrid.plans.diagnosed import looks_of
from stalegrid.plans.exchanged import Exchanged
from stalegrid.plans.material import (
    cast_model,
    check_data,
    check_last,
    check_optimizer,
    check_precision,
    check_test,
    make_batches,
    make_test,
    precision_of,
)
from stalegrid.plans.measured import check_apart, check_measured, check_shared
from stalegrid.plans.plan import Plan, exchanging
from stalegrid.plans.staged import SHARED, Staged, cut_measured, is_staged, make_staged
from stalegrid.plans.targets import Targets, targets_travel
from stalegrid.plans.task import Task
from stalegrid.plans.trials import CPU, Probed, probe, widest
from stalegrid.plans.tried import (
    check_kind,
    check_momentum,
    check_owned_once,
    check_sums,
    check_whole,
    frozen_below,
    held_by,
)
from stalegrid.plans.unequal import tell_unequal
from stalegrid.programs import (
    Encountering,
    Grid,
    GridSettings,
    Lateral,
    Layout,
    Program,
    Schedule,
    Shared,
    Through,
    Ties,
    Watch,
    read_meetings,
)
from stalegrid.seeds import drawing
from stalegrid.stages import Precision, StageLayout, View, find_view, makers
from stalegrid.timing import CostTable, DeviceTable


@drawing(CPU, 0, "plan")
def make_plan(
    task: Task, asked: Choices, table: CostTable | DeviceTable | None = None, *, virtual: bool = False
) -> Plan:
    """Settle and check every choice of a run.

    Args:
        task: what is trained.
        asked: how.
        table: what the model costs; what the devices' settings name if left out.
        virtual: whether time is computed, not spent.

    Raises:
        ConfigError: something cannot be run; the message says what, its value, and the remedy.
    """
    way = _way(asked)
    grid, view = way.grid, way.view
    devices, cuts = settle_devices(asked.devices, grid, asked.grid.cuts, asked.training, table, virtual=virtual)
    corrections, codecs = chosen_corrections(way.method.corrections, asked.method), chosen(asked.codec)
    data = _data(task, asked, way)
    mixing, turns = _exchange(asked, way, data, virtual=virtual)
    lateral = mixing.lateral(turns)
    devices = devices.exchanging(Exchanged(mixing, turns, asked.mixing.momentum))
    unequal = devices.alike is not None
    devices, schedule = _schedule(asked, way, data, devices, partial(exchanging, mixing, turns))
    check_compiling(asked.training, view, schedule)
    if asked.output.evaluation == SHARED:
        check_shared(task, asked.output)
    whole = _whole(task, asked, grid)
    watch = make_watch(whole.test, asked.output, data.per_epoch)
    each = examples(data.batches, asked.training, data.end, cut=grid.stages > 1, targets=data.travel)
    cut = _cut(asked, data, whole, each, devices.cuts if unequal else cuts, grid.stages)
    stages, ties = cut.stages(whole.model), Ties(cut.ties, always=view.elsewhere and not view.delay)
    frozen = frozen_below(stages)
    program = Program(grid, schedule, data.end, lateral, watch, view.recomputes, frozen, data.travel, ties)
    planned, made = dataclasses.replace(program, updates=data.updates), partial(task.filled, model=whole.model)
    trying = partial(probe, form=cut.form, precision=whole.precision, compiles=asked.training.compile, made=made)
    trial = partial(trying, task, planned, view, makers(corrections), stages)
    trials = [trial(one.inputs, one.targets, one.samples) for one in each]
    probed = widest(trials)
    _check_measuring(task, asked, whole)
    _check_trained(task, way, data, mixing, whole, probed, late=bool(corrections or cut.ties or _stale(schedule)))
    momentum = asked.mixing.momentum and mixing.averages_parameters
    if momentum:
        check_momentum(task, [p.weights for p in probed])
    trainable = tuple(sum(p.numel() for p in one.weights.trainable()) for one in probed)
    layouts = tuple(StageLayout.of(one.weights) for one in probed)
    check_owned_once(whole.model, layouts)
    bounds = [schedule.bound(k) if size else 0 for k, size in enumerate(trainable)]
    watch, staged = _watched(watch, asked, bounds, grid.groups, data.end), None
    if is_staged(asked.output, made=task.source is not None, stages=grid.stages):
        staged = _staged(task, asked, whole, cut, stages, layouts)
        watch = Through(watch.report_every, watch.snapshot_every, watch.chunks, grid.stages, staged.lent)
    program = dataclasses.replace(program, watch=watch)
    if mixing.timed and not virtual:
        program = Encountering.of(program, mixing.askers(turns))
    if not has_name(mixing):
        vectors = [Vectors(read, size, momentum) for read, size in zip(layouts, trainable, strict=True)]
        check_mixing(mixing, turns, program, vectors, [p.weights for p in probed])
    gap, read = asked.output.gap, any(p.reads_forwarded for p in probed)
    plan = Plan(
        way.method,
        view,
        mixing,
        turns,
        corrections,
        asked.training,
        data.updates,
        program,
        cut,
        Targets.of(*(one.targets for one in each)),
        layouts,
        data.per_epoch,
        momentum,
        gap,
        trainable,
        tuple(held_by(program, k, view, gap, read, p) for k, p in enumerate(probed)),
        devices,
        probed[-1].sums,
        way.reduction,
        staged=staged,
        numbers=data.batches.numbers.apart(),
        given=_given(trials) if asked.training.compile else (),
        codecs=codecs,
        apart=asked.output.js_distance,
    )
    _check_coded(plan)
    held = (nbytes + plan.messages.remembered(k) for k, nbytes in enumerate(plan.held))
    return dataclasses.replace(plan, held=tuple(held))


@dataclass(frozen=True)
class _Way:
    """How it is trained: what the method has, unless the user chooses."""

    method: Method
    grid: Grid
    micro_batches: int
    reduction: Reduction
    view: type[View]


@dataclass(frozen=True)
class _Data:
    """What is trained on, and how long."""

    batches: Batches | Stream
    updates: int  # that are planned
    per_epoch: int
    end: int  # where the program ends
    travel: bool  # whether targets do


@dataclass(frozen=True)
class _Whole:
    """The model before it is cut, and what it is measured with."""

    model: nn.Module
    tried: nn.Module  # of which captures are made
    test: Slices | None
    precision: Precision


def _way(asked: Choices) -> _Way:
    method = find_grid(asked.method.name)
    refuse(asked.servers, f"{method.name} trains a grid; learners are those of hardsync, softsync and asgd")
    return _Way(
        method,
        grid_of(method, asked.grid),
        method.micro_batches if asked.method.micro_batches is None else asked.method.micro_batches,
        method.reduction if asked.method.reduction is None else asked.method.reduction,
        find_view(method.view if asked.method.view is None else asked.method.view),
    )


def _data(task: Task, asked: Choices, way: _Way) -> _Data:
    batches = make_batches(task, asked.training, way.grid.groups, way.micro_batches)
    check_data(task, asked.training, batches)
    updates = updates_of(asked.training, batches.updates_per_epoch)
    per_epoch = updates if batches.updates_per_epoch is None else batches.updates_per_epoch
    travel = targets_travel(asked.training, batches) and way.grid.stages > 1
    return _Data(batches, updates, per_epoch, end_of(asked.training, updates), travel)


def _exchange(asked: Choices, way: _Way, data: _Data, *, virtual: bool) -> tuple[Mixing, Turns]:
    """Return what groups exchange, and when."""
    groups, sizes, method = way.grid.groups, data.batches.sizes.each, way.method
    mixing = choose_mixing(asked.mixing, method.mixing, method.name, groups, sizes)
    updates, seed = data.updates, asked.training.seed
    turns = turns_of(asked.mixing, groups, data.end, sizes, method.turns, mixing, way.grid.stages, seed, updates)
    check_turns(mixing, turns, momentum=asked.mixing.momentum)
    return mixing, _repeating(asked.mixing, mixing, turns, way.grid, virtual=virtual)


def _schedule(
    asked: Choices, way: _Way, data: _Data, devices: Devices, exchanging: Callable[[int], Lateral]
) -> tuple[Devices, Schedule]:
    """Return how far stages run ahead, and the devices once they have their shares of the model."""
    grid, view, micro, travel = way.grid, way.view, way.micro_batches, data.travel
    staleness = asked.method.staleness
    if staleness == "auto":
        within = asked.method.within
        staleness = devices.enough_staleness(way.method, grid, view, micro, exchanging, within, targets_travel=travel)
    schedule = schedule_of(way.method, grid.stages, staleness, asked.method.queues, micro, view.delay)
    view.check(schedule)
    if devices.alike is not None:
        devices = devices.faster(grid, schedule, view, exchanging, targets_travel=travel)
    return devices, schedule


def _whole(task: Task, asked: Choices, grid: Grid) -> _Whole:
    if grid.stages > 1:
        check_followed(task.model)
    model, test = cast_model(task, asked.training), make_test(task, asked.training)
    tried = task.tried(model)
    check_optimizer(task, model)
    check_precision(model, asked.training)
    return _Whole(model, tried, test, precision_of(asked.training))


def _cut(
    asked: Choices, data: _Data, whole: _Whole, each: Sequence[Example], cuts: list[str] | None, stages: int
) -> Partition:
    form, apart = data.batches.form, asked.grid.tied == "mirror"
    first, *more = {shapes_of(one.inputs): one.inputs for one in each}.values()
    with whole.precision.on(CPU):
        check_last(whole.tried, form, each, data.batches.sizes.whole)
        with cutting(asked.grid.cuts, cuts):
            return partition(whole.tried, first, stages, cuts, form, asked.grid.blocks, apart=apart, more=more)


def _check_measuring(task: Task, asked: Choices, whole: _Whole) -> None:
    check_saved(whole.tried)
    with whole.precision.on(CPU):
        check_test(task, whole.tried, whole.test)
        check_measured(task, whole.tried, whole.test, asked.output.best)
        check_apart(whole.tried, whole.test, asked.output)


def _check_trained(
    task: Task, way: _Way, data: _Data, mixing: Mixing, whole: _Whole, probed: Sequence[Probed], *, late: bool
) -> None:
    """Check what a trial has shown; ``late``: whether gradients are late, corrected, or those of several stages."""
    sums, adds = probed[-1].sums, way.reduction == "sum"
    if sums:
        check_sums(mixing, way.reduction)
    averaging = way.grid.groups if mixing.averages_gradients else 1
    tell_unequal(task.loss, data.batches, averaging, whole.test, sums=sums, adds=adds)
    check_kind(way.method, probed[0].optimizer)
    if late or mixing.averages_gradients or "sparse gradients" in mixing.refuses:
        check_whole(probed)


def _stale(schedule: Schedule) -> bool:
    return any(schedule.bound(k) for k in range(len(schedule.windows)))


def _watched(watch: Watch, asked: Choices, bounds: Sequence[int], groups: int, end: int) -> Watch:
    """Return what is watched, with what is diagnosed, and by whom."""
    looks = looks_of(asked.output, bounds, groups, end)
    if asked.output.evaluation == SHARED:
        return Shared(watch.report_every, watch.snapshot_every, watch.chunks, looks=looks)
    return dataclasses.replace(watch, looks=looks)


def _staged(
    task: Task,
    asked: Choices,
    whole: _Whole,
    cut: Partition,
    stages: Sequence[nn.Module],
    layouts: Sequence[StageLayout],
) -> Staged:
    """Return how stages measure and save the model."""
    measuring, blocks, apart = None, asked.grid.blocks, asked.grid.tied == "mirror"
    if whole.test is not None:
        with whole.precision.on(CPU):
            measuring = cut_measured(whole.tried, whole.test, cut, blocks, apart=apart)
    return make_staged(whole.model, stages, layouts, measuring, tuple(task.metrics))


def _check_coded(plan: Plan) -> None:
    turns, messages = plan.turns, plan.messages
    plain = turns.lag_rule == "own-current" and turns.sparse == 1.0 and turns.fragments == 1
    check_codecs(plan.codecs, plan.mixing, list(messages.edges()), messages.coding, momentum=plan.momentum, plain=plain)


def _given(trials: Sequence[list[Probed]]) -> tuple[tuple[Layout, ...], ...]:
    return tuple(tuple(dict.fromkeys(one.given for one in of_stage)) for of_stage in zip(*trials, strict=True))


def _repeating(asked: MixingSettings, mixing: Mixing, turns: Turns, grid: Grid, *, virtual: bool) -> Turns:
    """Return when groups exchange, as in the run that is repeated, if one is.

    Raises:
        ConfigError: it cannot be repeated so.
    """
    if asked.meetings is None:
        return turns
    if not mixing.timed:
        raise ConfigError(
            f"in this mixing timing decides nothing (mixing.meetings: {asked.meetings}, mixing: {mixing.name}); leave "
            "the record out"
        )
    if not virtual:
        raise ConfigError(
            f"a record is repeated on the simulator (mixing.meetings: {asked.meetings}); take engine simulator"
        )
    return dataclasses.replace(turns, meetings=read_meetings(asked.meetings, list(grid)))


def grid_of(method: Method, asked: GridSettings) -> Grid:
    """Return the grid that is asked for, or the method's own.

    Raises:
        ConfigError: the method does not run on such a grid.
    """
    groups = method.shape[0] if asked.groups is None else asked.groups
    stages = method.shape[1] if asked.stages is None else asked.stages
    if method.max_groups is not None and groups > method.max_groups:
        raise ConfigError(f"{method.name} trains one group (groups: {groups}); for more use data-parallel or pham-ahn")
    if method.max_stages is not None and stages > method.max_stages:
        raise ConfigError(f"{method.name} does not cut the model (stages: {stages}); use gpipe, 1f1b or pham-ahn")
    return Grid(groups, stages)
