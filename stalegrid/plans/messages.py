"""What every message of a run on a grid consists of: tensors, bytes, and how they are coded.

Does not know: when messages are sent, engines.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import torch

from stalegrid.codecs import Chosen, Coding
from stalegrid.consensus import Mixing, Turns, Vectors
from stalegrid.observe import SUMS, MeanReport, Report, measurement
from stalegrid.partition import Partition
from stalegrid.plans.coded import WITHIN, floating
from stalegrid.plans.staged import Staged
from stalegrid.plans.targets import Targets
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
    Layout,
    Program,
    Shared,
    TensorSpec,
    Through,
    flat_layout,
)
from stalegrid.stages import StageLayout


@dataclass(frozen=True)
class Messages:
    """What messages consist of.

    Args:
        program: that sends them.
        partition: where the model is cut.
        targets: what those of a batch are like.
        stages: how the vectors of each stage read.
        trainable: elements that each stage's optimizer updates, without padding.
        mixing: what groups exchange.
        turns: when they do.
        momentum: whether momentum buffers are mixed too.
        sums: whether gradients are sums, and travel with what the loss counts.
        staged: how stages measure and save the model; None where the observer does.
        codecs: by the setting that chose them.
    """

    program: Program
    partition: Partition
    targets: Targets
    stages: tuple[StageLayout, ...]
    trainable: tuple[int, ...]
    mixing: Mixing
    turns: Turns
    momentum: bool = False
    sums: bool = False
    staged: Staged | None = None
    codecs: Mapping[str, Chosen] = field(default_factory=dict)

    def nbytes(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge; of the largest, where there are batches of several shapes."""
        return max(sum(spec.nbytes for spec in layout) for layout in self.layouts(edge))

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
        unsent = dict.fromkeys(range(self.program.grid.groups), 0)
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
                return Report.layout(self.program.schedule.bound(stage), len(self.mixing.tells))
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


def _snapshot(read: StageLayout) -> Layout:
    counters = sum(math.prod(shape) for _, shape in read.counters)
    return flat_layout(read.numel, read.dtype) + flat_layout(counters, torch.int64)


def _spec(name: str, read: StageLayout) -> TensorSpec:
    entry = next(entry for entry in read.entries if entry.name == name)
    return TensorSpec(entry.shape, entry.stride, read.dtype)
