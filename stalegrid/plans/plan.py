"""A run made definite: every choice settled and checked before any process starts.

Does not know: engines, processes, files.
"""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch

from stalegrid.codecs import Chosen, Coding, chosen
from stalegrid.consensus import (
    Mixing,
    MixingSettings,
    Turns,
    Vectors,
    check_mixing,
    check_turns,
    choose_mixing,
    has_name,
    kind_of,
    turns_of,
)
from stalegrid.data import Counted, Numbers, Owned, TrainingSettings, examples
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, Reduction, find_grid
from stalegrid.methods import schedule as schedule_of
from stalegrid.objects import check_followed, shapes_of
from stalegrid.observe import SUMS, MeanReport, Record, Report, Saved, check_saved, measurement
from stalegrid.partition import Partition, partition
from stalegrid.plans.choices import (
    C,
    Choices,
    chosen_corrections,
    end_of,
    make_watch,
    refuse,
    settled,
    updates_of,
)
from stalegrid.plans.coded import WITHIN, check_codecs, floating
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
from stalegrid.plans.membership import ALL, Membership
from stalegrid.plans.probe import CPU, Probed, probe, widest
from stalegrid.plans.staged import PIPELINE, SHARED, Staged, cut_measured, is_staged, make_staged
from stalegrid.plans.targets import Targets, targets_travel
from stalegrid.plans.task import Task
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
    ASKED,
    GRADIENT,
    LENT,
    LOOK,
    MEAN,
    MEASURED,
    PART,
    REPLICA,
    TAKEN,
    TESTED,
    VERDICT,
    WEIGHTS,
    WHOLE,
    Edge,
    Encountering,
    Grid,
    GridSettings,
    Lateral,
    Layout,
    Program,
    Saves,
    Schedule,
    Shared,
    Stoppable,
    TensorSpec,
    Through,
    Ties,
    Unit,
    flat_layout,
    read_meetings,
)
from stalegrid.seeds import drawing
from stalegrid.stages import (
    VIEWS,
    Maker,
    StageLayout,
    View,
    find_view,
    makers,
    name_of_view,
)
from stalegrid.timing import CostTable, DeviceTable, TimeModel
from stalegrid.written import text_of


@dataclass(frozen=True)
class Plan:
    """What every process of a run agrees on.

    Args:
        method: the published method.
        view: which weights a late backward sees.
        mixing: what groups exchange.
        turns: when they mix, and with whom.
        corrections: of gradients and learning rates.
        training: how much.
        updates: that are planned; the program may end before.
        program: what is due.
        partition: where the model is cut.
        targets: what those of a batch are like.
        stages: how the vectors of each stage read.
        updates_per_epoch: of a group.
        momentum: whether momentum buffers are mixed too.
        gap: whether the gap is measured.
        trainable: elements that each stage's optimizer updates, without padding.
        held: bytes that each stage holds at most for batches in flight (graphs, inputs, copies of the parameters), and
            what corrections, the mixing and codecs keep.
        devices: what is known of them.
        sums: whether the loss is a sum and what it counts, which travels down with the gradients.
        reduction: what an update makes of the gradients of its micro-batches: their mean or their sum.
        membership: which groups the run is without, by and by.
        whole: the plan of the same run with all groups; None where that is this one.
        staged: how stages measure and save the model; None where the observer does.
        numbers: of the samples of each batch, for who is sent its targets and reads none; None where only the data
            itself can tell.
        apart: whether it is measured how far groups are apart in what they predict.
        given: for each stage that is compiled, what its inputs are like, for a batch of each shape.
        codecs: of messages, by the setting that chose them.
        bears: which rates its stages bear, as plain values; None where that was not measured.
    """

    method: Method
    view: type[View]
    mixing: Mixing
    turns: Turns
    corrections: tuple[str | Maker, ...]
    training: TrainingSettings
    updates: int
    program: Program
    partition: Partition
    targets: Targets
    stages: tuple[StageLayout, ...]
    updates_per_epoch: int
    momentum: bool
    gap: bool
    trainable: tuple[int, ...]
    held: tuple[int, ...]
    devices: Devices
    sums: bool = False
    reduction: Reduction = "mean"
    membership: Membership = ALL
    whole: "Plan | None" = None
    staged: Staged | None = None
    numbers: Numbers | Owned | Counted | None = None
    given: tuple[tuple[Layout, ...], ...] = ()
    codecs: Mapping[str, Chosen] = field(default_factory=dict)
    apart: bool = False
    bears: Record | None = None

    @property
    def saves_parts(self) -> tuple[Saved, ...]:
        """What each stage saves of the model; none where the observer saves it."""
        return () if self.staged is None else self.staged.saved

    @property
    def grid(self) -> Grid:
        """The units."""
        return self.program.grid

    @property
    def schedule(self) -> Schedule:
        """How far stages run ahead."""
        return self.program.schedule

    @property
    def weight(self) -> float:
        """What a micro-batch's loss weighs in the gradients of its update, as they are added up."""
        added = self.sums or self.reduction == "sum"
        return 1.0 if added else 1.0 / self.schedule.micro_batches

    @property
    def bounds(self) -> list[int]:
        """Staleness in updates that no update of each stage exceeds; 0 where nothing is trained."""
        return [self.schedule.bound(k) if size else 0 for k, size in enumerate(self.trainable)]

    @property
    def owners(self) -> list[list[Unit]]:
        """The units that have a replica of each stage."""
        return [[Unit(s, k) for s in self.turns.members] for k in range(self.grid.stages)]

    @property
    def spectral_gap(self) -> float | None:
        """How much closer to their mean the groups come in a mixing turn; None where parameters are not averaged."""
        averaged = self.mixing.averages_parameters and not self.mixing.timed
        known = averaged and has_name(self.mixing) and self.grid.groups > 1
        return self.turns.matrix.spectral_gap if known else None

    @property
    def time_model(self) -> TimeModel | None:
        """What actions take and messages weigh; None where no costs are known."""
        return None if self.devices.costs is None else self.devices.time_model(self.program, self.nbytes)

    def saved(self, saves: Saves) -> "Plan":
        """Return the plan of the same run that is saved, or goes on from a save.

        Raises:
            ConfigError: nobody knows what the groups' messages are that are under way when it is saved.
        """
        if isinstance(self.program, Encountering):
            raise ConfigError(
                f"nobody knows beforehand what is under way at a version where groups meet whenever they do (mixing: "
                f"{self.mixing.name}, engine: processes); run without checkpoints, or on the simulator"
            )
        if not hasattr(self.program.lateral, "crossing"):
            raise ConfigError(
                f"a mixing of your own must say which of its messages are under way at a version (mixing: "
                f"{text_of(self.mixing)}); give its lateral crossing(tag), or run without checkpoints"
            )
        return dataclasses.replace(self, program=dataclasses.replace(self.program, saves=saves))

    @property
    def askable(self) -> bool:
        """Whether somebody may ask it to be saved, or to leave, at a version that was not planned."""
        return has_name(self.mixing) and not self.mixing.timed

    def begun(self, update: int) -> "Plan":
        """Return the plan of the same run that begins with a later update, with nothing in flight.

        Raises:
            ConfigError: nothing is left to train, or nobody knows what groups would have sent each other before.
        """
        if update and self.mixing.timed:
            raise ConfigError(
                f"questions that were under way are not known where groups meet whenever they do (mixing: "
                f"{self.mixing.name}); take another mixing, or begin anew with the exported model"
            )
        if update and not has_name(self.mixing):
            raise ConfigError(
                f"a mixing of your own may wait for what was sent before a run begins (mixing: "
                f"{text_of(self.mixing)}); take one by name, or begin anew with the exported model"
            )
        turns = dataclasses.replace(self.turns, begins=update)
        schedule = dataclasses.replace(self.schedule, begins=update)
        lateral = self.mixing.lateral(turns) if update else self.program.lateral
        program = dataclasses.replace(self.program, schedule=schedule, lateral=lateral)
        return dataclasses.replace(self, turns=turns, program=program)

    def stoppable(self, *, ends: bool = True, asks: bool = False) -> "Plan":
        """Return the plan of the same run where a callback may end it early, or somebody may ask for more.

        Args:
            ends: whether a callback may end it.
            asks: whether somebody may ask it to be saved, or to leave.

        Raises:
            ConfigError: the groups exchange in a way that may depend on how long the run is, or would never exchange if
                the first evaluation ended it.
        """
        if self.mixing.timed:
            raise ConfigError(
                f"where groups meet whenever they do nobody knows who has met whom when a callback ends the run "
                f"(mixing: {self.mixing.name}); let no callback ask for the end (stops = False), or take another mixing"
            )
        if not has_name(self.mixing):
            raise ConfigError(
                f"a mixing of your own may depend on how long a run is, which a callback may change (mixing: "
                f"{text_of(self.mixing)}); let no callback ask for the end (stops = False), or take a mixing by name"
            )
        schedule = self.schedule
        ahead = 0 if schedule.flush else math.ceil((max(schedule.windows) - 1) / schedule.micro_batches)
        if self.mixing.averages_parameters:
            ahead = max(ahead, self.turns.lag)
        laterals = partial(_lateral, self.mixing, self.turns)
        apart = 1 + self.turns.lag if self.grid.groups > 1 else 0
        program = Stoppable.of(self.program, ahead, laterals, ends=ends, asks=asks, apart=apart)
        return dataclasses.replace(self, program=program)

    def among(self, membership: Membership) -> "Plan":
        """Return the plan of a run that goes on with the groups that are there.

        Args:
            membership: which are not, and which are there again.

        Raises:
            ConfigError: they cannot mix.
        """
        if not membership.lost:
            return self
        self.check_losing()
        gone, back, since = membership.gone, membership.back, self.program.saves.since
        late = tuple((s, came.version) for s, came in back.items() if came.version + self.turns.lag > since)
        turns = self.turns.only(gone, late)
        lateral = _lateral(self.mixing, turns, self.program.updates)
        program = dataclasses.replace(self.program, gone=gone, back=back, lateral=lateral)
        return dataclasses.replace(self, turns=turns, program=program, membership=membership, whole=self)

    def at(self, update: int) -> "Plan":
        """Return the plan of the groups that were there when an update was made."""
        then = self.membership.until(update)
        if self.whole is None or then == self.membership:
            return self
        whole = self.whole.program
        return dataclasses.replace(self.whole, program=dataclasses.replace(whole, saves=Saves())).among(then)

    def check_losing(self) -> None:
        """Check that the groups that are left can go on when one is lost.

        Raises:
            ConfigError: they cannot.
        """
        if not has_name(self.mixing):
            raise ConfigError(
                f"a mixing of your own does not know which groups are there (engine.on_loss: continue, mixing: "
                f"{text_of(self.mixing)}); take one by name, or leave it out"
            )
        self.mixing.refuse("lost groups", "engine.on_loss: continue")
        if self.mixing.sends_differences or any(codec.feedback for codec in self.codecs.values()):
            raise ConfigError(
                "what groups know of each other's former messages is not that of a group that was lost or comes back "
                f"(engine.on_loss: continue, mixing: {self.mixing.text}, codecs: "
                f"{', '.join(map(str, self.codecs.values())) or 'none'}); take codecs without feedback and another "
                "mixing, or leave it out"
            )
        turns = self.turns
        if turns.lag_rule == "ema" or (turns.lag_rule == "delta" and turns.lag >= turns.period):
            raise ConfigError(
                f"groups that are left may drift apart, and one that comes back has no estimate (engine.on_loss: "
                f"continue, mixing.lag_rule: {turns.lag_rule}, lag: {turns.lag}, period: {turns.period}); take lag "
                "rule own-current, or delta with a period above the lag, or leave it out"
            )

    def epochs(self, version: int) -> float:
        """Return how many passes over the data were trained up to a version, without what lost groups have left out."""
        sizes = self.turns.matrix.sizes
        return (version - self.membership.left_out(version, sizes) / sum(sizes)) / self.updates_per_epoch

    def ended_at(self, version: int | None) -> "Plan":
        """Return the plan of a run that was asked to end by the verdict of a version, if it was."""
        program = self.program
        if version is None or not isinstance(program, Stoppable):
            return self
        return dataclasses.replace(self, program=program.until(version + program.lead))

    def nbytes(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge; of the largest, where there are batches of several shapes."""
        return max(sum(spec.nbytes for spec in layout) for layout in self.layouts(edge))

    def layout(self, edge: Edge) -> Layout:
        """Return what a message of an edge consists of, for the first batch."""
        return self.layouts(edge)[0]

    def layouts(self, edge: Edge) -> tuple[Layout, ...]:
        """Return what a message of an edge may consist of: several where there are batches of several shapes."""
        coding = self.coding(edge)
        return self._said(edge) if coding is None else coding.coded

    def coding(self, edge: Edge) -> Coding | None:
        """Return how the messages of an edge are coded; None where they travel as they are."""
        kind = {**WITHIN, **self.mixing.coded}.get(edge.name)
        if kind is None or kind not in self.codecs:
            return None
        said, codec = self._said(edge), self.codecs[kind]
        spans = tuple(self._lossy(edge, layout) for layout in said)
        if not any(map(any, spans)):
            return None
        echoed = edge.name in self.mixing.echoed
        return Coding(codec.codec, codec.feedback, said, spans, echoed, flagged=edge.name == "gradient")

    def remembered(self, stage: int) -> int:
        """Return the bytes that a unit of a stage keeps of messages that are past, at most."""
        unsent = dict.fromkeys(range(self.grid.groups), 0)
        for edge in self.edges():
            if edge.source.stage == stage and (coding := self.coding(edge)) is not None:
                unsent[edge.source.group] += coding.unsent
        return max(unsent.values()) + self.mixing.remembered(self.turns, self._vectors(stage))

    def edges(self) -> Iterator[Edge]:
        """Yield every edge between units."""
        return (edge for unit in self.program.units for edge in self.program.inbound(unit))

    def _lossy(self, edge: Edge, layout: Layout) -> tuple[int, ...]:
        """Return how many elements of each tensor of a message may lose something."""
        if edge.name == "activation":
            return floating(layout)
        if edge.name == "gradient":
            counts = self.sums if layout else 0  # what a sum counts is no gradient
            return floating(layout[: len(layout) - counts]) + (0,) * counts
        first = self.mixing.lossy(edge, self.turns, self._vectors(edge.source.stage))
        return first, *(0 for _ in layout[1:])

    def _said(self, edge: Edge) -> tuple[Layout, ...]:
        """Return what units send on an edge, and take, whatever travels in its place."""
        stage = edge.source.stage
        match edge.name:
            case "activation":
                return self.partition.crossing(stage)
            case "gradient" if self.program.carries_gradient(edge):
                return tuple(dict.fromkeys(map(self._gradient, self.partition.crossing(stage - 1))))
            case "target":
                return self.targets.layouts
            case name if name == TESTED:
                assert self.staged is not None
                assert self.staged.partition is not None
                return self.staged.partition.crossing(stage)
        return (self._layout(edge),)

    def _gradient(self, above: Layout) -> Layout:
        """Return what a gradient consists of, by the activation that it is of."""
        floating = tuple(s for s in above if s.dtype.is_floating_point)
        counts = flat_layout(1, torch.float64) if self.sums else ()
        return floating + flat_layout(len(floating), torch.uint8) + counts

    def _layout(self, edge: Edge) -> Layout:
        """Return what every message of an edge consists of that is not of a batch."""
        stage = edge.source.stage
        read = self.stages[stage]
        match edge.name:
            case "gradient":
                return ()
            case "report":
                return Report.layout(self.schedule.bound(stage), len(self.mixing.tells))
            case name if name == VERDICT:
                return flat_layout(1, torch.uint8)
            case name if name == ASKED:
                return flat_layout(2, torch.uint8)
            case name if name == TAKEN:
                return ()
            case name if name == MEAN:
                return MeanReport.layout(len(self.turns.members), len(read.counters))
            case name if name == MEASURED:
                assert self.staged is not None
                return measurement(len(self.staged.metrics))
            case name if name == LENT:
                return tuple(_spec(one.name, read) for one in self._through.along(edge))
            case name if name == WHOLE:
                return tuple(spec for one in self.stages for spec in _snapshot(one))
            case name if name == PART:
                assert isinstance(self.program.watch, Shared)
                share = self.program.watch.share(edge.source, self.program.units)
                return flat_layout(SUMS * len(share), torch.float64)
            case name if name in ("snapshot", REPLICA):
                return _snapshot(read)
            case name if name == LOOK:
                return _snapshot(read) + flat_layout(1, torch.float64)  # the rate beside it
            case name if name == WEIGHTS:
                return self._tied(edge)
            case name if name == GRADIENT:
                tied = self._tied(edge)
                return tied + flat_layout(len(tied), torch.int64)
        return self.mixing.layout(edge, self.turns, self._vectors(stage))

    def _vectors(self, stage: int) -> Vectors:
        sums = self.sums and stage >= self.program.frozen  # nobody below is told what the loss counts
        return Vectors(self.stages[stage], self.trainable[stage], self.momentum, sums)

    @property
    def _through(self) -> Through:
        assert isinstance(self.program.watch, Through)
        return self.program.watch

    def tied_bytes(self, stage: int) -> dict[str, int]:
        """Return the bytes of what a stage shares with others, by the owners' names."""
        ties = self.program.ties
        used = [*ties.owned(stage), *ties.mirrored(stage)]
        return {tie.names[0]: _spec(tie.names[0], self.stages[tie.owner]).nbytes for tie in used}

    def _tied(self, edge: Edge) -> Layout:
        return tuple(_spec(tie.names[0], self.stages[tie.owner]) for tie in self.program.ties.along(edge))

    def settled(self, asked: C) -> C:
        """Write the plan's choices into what was asked for, so that it runs the same way again."""
        schedule, cuts, when = self.schedule, list(self.partition.names), self.method.turns.of(asked.mixing)
        common = settled(
            asked,
            self.corrections,
            staleness=[w - 1 for w in schedule.windows] if self.method.stale else None,
            queues=None,
            view=name_of_view(self.view) if self.view in VIEWS.values() else self.view,
            micro_batches=schedule.micro_batches,
            reduction=self.reduction,
        )
        return dataclasses.replace(
            common,
            grid=dataclasses.replace(asked.grid, groups=self.grid.groups, stages=self.grid.stages, cuts=cuts),
            mixing=dataclasses.replace(
                asked.mixing,
                kind=kind_of(self.mixing, asked.mixing, self.method.mixing),
                **vars(when) | {"topology": self.mixing.topology if when.topology is None else when.topology},
            ),
            output=asked.output if self.staged is None else dataclasses.replace(asked.output, evaluation=PIPELINE),
        )


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
    method = find_grid(asked.method.name)
    refuse(asked.servers, f"{method.name} trains a grid; learners are those of hardsync, softsync and asgd")
    grid = grid_of(method, asked.grid)
    micro = method.micro_batches if asked.method.micro_batches is None else asked.method.micro_batches
    reduction = method.reduction if asked.method.reduction is None else asked.method.reduction
    view = find_view(method.view if asked.method.view is None else asked.method.view)
    devices, cuts = settle_devices(asked.devices, grid, asked.grid.cuts, asked.training, table, virtual=virtual)
    corrections = chosen_corrections(method.corrections, asked.method)
    codecs = chosen(asked.codec)
    batches = make_batches(task, asked.training, grid.groups, micro)
    check_data(task, asked.training, batches)
    updates = updates_of(asked.training, batches.updates_per_epoch)
    per_epoch = updates if batches.updates_per_epoch is None else batches.updates_per_epoch
    travel = targets_travel(asked.training, batches) and grid.stages > 1
    end = end_of(asked.training, updates)
    sizes = batches.sizes.each
    mixing = choose_mixing(asked.mixing, method.mixing, method.name, grid.groups, sizes)
    seed = asked.training.seed
    turns = turns_of(asked.mixing, grid.groups, end, sizes, method.turns, mixing, grid.stages, seed, updates)
    check_turns(mixing, turns, momentum=asked.mixing.momentum)
    turns = _repeating(asked.mixing, mixing, turns, grid, virtual=virtual)
    lateral = mixing.lateral(turns)
    devices = devices.exchanging(Exchanged(mixing, turns, asked.mixing.momentum))
    staleness, exchanging = asked.method.staleness, partial(_lateral, mixing, turns)
    if staleness == "auto":
        within = asked.method.within
        staleness = devices.enough_staleness(method, grid, view, micro, exchanging, within, targets_travel=travel)
    schedule = schedule_of(method, grid.stages, staleness, asked.method.queues, micro, view.delay)
    view.check(schedule)
    if devices.alike is not None:
        devices = devices.faster(grid, schedule, view, exchanging, targets_travel=travel)
        cuts = devices.cuts
    check_compiling(asked.training, view, schedule)
    if asked.output.evaluation == SHARED:
        check_shared(task, asked.output)
    if grid.stages > 1:
        check_followed(task.model)
    model, test = cast_model(task, asked.training), make_test(task, asked.training)
    tried = task.tried(model)
    check_optimizer(task, model)
    check_precision(model, asked.training)
    precision = precision_of(asked.training)
    watch = make_watch(test, asked.output, per_epoch)
    apart, blocks = asked.grid.tied == "mirror", asked.grid.blocks
    each = examples(batches, asked.training, end, cut=grid.stages > 1, targets=travel)
    first, *more = {shapes_of(one.inputs): one.inputs for one in each}.values()
    with precision.on(CPU):
        check_last(tried, batches.form, each, batches.sizes.whole)
        with cutting(asked.grid.cuts, cuts):
            cut = partition(tried, first, grid.stages, cuts, batches.form, blocks, apart=apart, more=more)
    stages = cut.stages(model)
    ties = Ties(cut.ties, always=view.elsewhere and not view.delay)
    program = Program(grid, schedule, end, lateral, watch, view.recomputes, frozen_below(stages), travel, ties)
    planned, made = dataclasses.replace(program, updates=updates), partial(task.filled, model=model)
    trying = partial(probe, form=cut.form, precision=precision, compiles=asked.training.compile, made=made)
    trial = partial(trying, task, planned, view, makers(corrections), stages)
    trials = [trial(one.inputs, one.targets, one.samples) for one in each]
    probed = widest(trials)
    check_saved(tried)
    with precision.on(CPU):
        check_test(task, tried, test)
        check_measured(task, tried, test, asked.output.best)
        check_apart(tried, test, asked.output)
    sums = probed[-1].sums
    if sums:
        check_sums(mixing, reduction)
    averaging = grid.groups if mixing.averages_gradients else 1
    tell_unequal(task.loss, batches, averaging, test, sums=sums, adds=reduction == "sum")
    check_kind(method, probed[0].optimizer)
    stale = any(schedule.bound(k) for k in range(grid.stages))
    if stale or corrections or cut.ties or mixing.averages_gradients or "sparse gradients" in mixing.refuses:
        check_whole(probed)
    corrections_read = any(p.reads_forwarded for p in probed)
    weights = [p.weights for p in probed]
    momentum = asked.mixing.momentum and mixing.averages_parameters
    if momentum:
        check_momentum(task, weights)
    trainable = tuple(sum(p.numel() for p in w.trainable()) for w in weights)
    layouts = tuple(StageLayout.of(w) for w in weights)
    check_owned_once(model, layouts)
    bounds = [schedule.bound(k) if size else 0 for k, size in enumerate(trainable)]
    watch = dataclasses.replace(watch, looks=looks_of(asked.output, bounds, grid.groups, end))
    program = dataclasses.replace(program, watch=watch)
    staged = None
    if is_staged(asked.output, made=task.source is not None, stages=grid.stages):
        with precision.on(CPU):
            measuring = None if test is None else cut_measured(tried, test, cut, blocks, apart=apart)
        staged = make_staged(model, stages, layouts, measuring, tuple(task.metrics))
        own = watch.report_every, watch.snapshot_every, watch.chunks
        program = dataclasses.replace(program, watch=Through(*own, grid.stages, staged.lent))
    if asked.output.evaluation == SHARED:
        own = watch.report_every, watch.snapshot_every, watch.chunks
        program = dataclasses.replace(program, watch=Shared(*own, looks=watch.looks))
    if mixing.timed and not virtual:
        program = Encountering.of(program, mixing.askers(turns))
    vectors = [Vectors(read, size, momentum) for read, size in zip(layouts, trainable, strict=True)]
    if not has_name(mixing):
        check_mixing(mixing, turns, program, vectors, weights)
    plan = Plan(
        method,
        view,
        mixing,
        turns,
        corrections,
        asked.training,
        updates,
        program,
        cut,
        Targets.of(*(one.targets for one in each)),
        layouts,
        per_epoch,
        momentum,
        asked.output.gap,
        trainable,
        tuple(held_by(program, k, view, asked.output.gap, corrections_read, p) for k, p in enumerate(probed)),
        devices,
        sums,
        reduction,
        staged=staged,
        numbers=batches.numbers.apart(),
        given=_given(trials) if asked.training.compile else (),
        codecs=codecs,
        apart=asked.output.js_distance,
    )
    plain = turns.lag_rule == "own-current" and turns.sparse == 1.0 and turns.fragments == 1
    check_codecs(codecs, mixing, list(plan.edges()), plan.coding, momentum=momentum, plain=plain)
    held = (nbytes + plan.remembered(k) for k, nbytes in enumerate(plan.held))
    return dataclasses.replace(plan, held=tuple(held))


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


def _lateral(mixing: Mixing, turns: Turns, updates: int) -> Lateral:
    return mixing.lateral(dataclasses.replace(turns, updates=updates))


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


def _snapshot(read: StageLayout) -> Layout:
    counters = sum(math.prod(shape) for _, shape in read.counters)
    return flat_layout(read.numel, read.dtype) + flat_layout(counters, torch.int64)


def _spec(name: str, read: StageLayout) -> TensorSpec:
    entry = next(entry for entry in read.entries if entry.name == name)
    return TensorSpec(entry.shape, entry.stride, read.dtype)
