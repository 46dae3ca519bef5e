"""A run on a grid made definite: every choice settled, before any process starts.

Does not know: engines, processes, files.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial

from stalegrid.codecs import Chosen
from stalegrid.consensus import (
    Mixing,
    Turns,
    has_name,
    kind_of,
)
from stalegrid.data import Counted, Numbers, Owned, TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, Reduction
from stalegrid.observe import Record, Saved
from stalegrid.partition import Partition
from stalegrid.plans.choices import (
    C,
    settled,
)
from stalegrid.plans.devices import Devices
from stalegrid.plans.membership import ALL, Membership
from stalegrid.plans.messages import Messages
from stalegrid.plans.staged import PIPELINE, Staged
from stalegrid.plans.targets import Targets
from stalegrid.programs import (
    Edge,
    Encountering,
    Grid,
    Lateral,
    Layout,
    Program,
    Saves,
    Schedule,
    Stoppable,
    Unit,
)
from stalegrid.stages import (
    VIEWS,
    Maker,
    StageLayout,
    View,
    name_of_view,
)
from stalegrid.timing import TimeModel
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
        laterals = partial(exchanging, self.mixing, self.turns)
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
        lateral = exchanging(self.mixing, turns, self.program.updates)
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

    @property
    def messages(self) -> Messages:
        """What messages consist of."""
        return Messages(
            self.program,
            self.partition,
            self.targets,
            self.stages,
            self.trainable,
            self.mixing,
            self.turns,
            self.momentum,
            self.sums,
            self.staged,
            self.codecs,
        )

    def nbytes(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge; of the largest, where there are batches of several shapes."""
        return self.messages.nbytes(edge)

    def layout(self, edge: Edge) -> Layout:
        """Return what a message of an edge consists of, for the first batch."""
        return self.messages.layouts(edge)[0]

    def layouts(self, edge: Edge) -> tuple[Layout, ...]:
        """Return what a message of an edge may consist of: several where there are batches of several shapes."""
        return self.messages.layouts(edge)

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


def exchanging(mixing: Mixing, turns: Turns, updates: int) -> Lateral:
    """Return when groups exchange in a run of so many updates."""
    return mixing.lateral(dataclasses.replace(turns, updates=updates))
