"""A run of learners and parameter servers made definite: every choice settled, before any process starts.

Does not know: engines, processes, how its plan comes about.
"""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import torch

from stalegrid.data import Counted, Numbers, Owned, TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import ServerMethod
from stalegrid.observe import Saved, Takes
from stalegrid.partition import Shard
from stalegrid.plans.choices import (
    C,
    settled,
)
from stalegrid.plans.devices import Devices
from stalegrid.plans.membership import Membership
from stalegrid.programs import (
    Edge,
    Grid,
    Layout,
    Led,
    Live,
    Ordered,
    Rules,
    Saves,
    Served,
    Unit,
    flat_layout,
    order_before,
    read_order,
)
from stalegrid.stages import Maker, StageLayout
from stalegrid.timing import ServedTimes


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
