"""The mixings that have a name: nothing, parameters by one rule or another, gradients, or outer optimizers.

Does not know: methods, engines.
"""

from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.consensus.agreeing import part_of
from stalegrid.consensus.allreduce import GradientAveraging
from stalegrid.consensus.choco import Choco
from stalegrid.consensus.diffusion import ExactDiffusion
from stalegrid.consensus.directed import PushMatrix, push_matrix
from stalegrid.consensus.lag_rules import averaging, check_rule, elements, remembered
from stalegrid.consensus.matrices import Topology
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.noloco import NoLoCo
from stalegrid.consensus.outer import Outer
from stalegrid.consensus.pairwise import Pairwise
from stalegrid.consensus.pushsum import PushSum
from stalegrid.consensus.rounds import MEAN, PARAMETERS, PART, AllReduce, Averaging, Pushing, Tracking
from stalegrid.consensus.tracking import GradientTracking
from stalegrid.programs import Edge, Lateral, Layout, Unit, flat_layout
from stalegrid.stages import Weights


class CombineWhileAdapt(Mixing):
    """Parameters of the start of a round travel while it is computed."""

    name: ClassVar[str] = "combine-while-adapt"
    averages_parameters: ClassVar[bool] = True
    coded: ClassVar[Mapping[str, str]] = {PARAMETERS: "parameters"}
    adapt_first: ClassVar[bool] = False

    def lateral(self, turns: Turns) -> Averaging:
        """Return the turns in which neighbours average.

        Raises:
            ConfigError: the period or the lag is none, there would be no turn, or groups would drift apart.
        """
        check_rule(turns)
        return turns.rounds(Averaging, adapt_first=self.adapt_first)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the averaging of a unit's parameters."""
        return averaging(turns, self.lateral(turns), unit.stage, weights, momentum, self.pull)

    def pull(self, gap: Tensor, share: float) -> Tensor:
        """Return what a unit adds to its own vector for one neighbour; override it for another rule than the mean.

        Args:
            gap: the neighbour's vector minus one's own: parameters, running statistics, and momentum where it is mixed
                too; may be changed.
            share: of the neighbour in this turn, from the mixing matrix.
        """
        return gap.mul_(share)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is mixed, and the momentum behind it, or the part of a turn."""
        return flat_layout(elements(turns, vectors), vectors.read.dtype)

    def remembered(self, turns: Turns, vectors: Vectors) -> int:
        """Return what the lag rule and the parts keep."""
        return remembered(turns, vectors)

    def lossy(self, edge: Edge, turns: Turns, vectors: Vectors) -> int:
        """Return the parameters: statistics are few, and are compared with one's own to the bit."""
        return vectors.read.trained


class AdaptThenCombine(CombineWhileAdapt):
    """Parameters travel after the optimizer's step."""

    name: ClassVar[str] = "adapt-then-combine"
    adapt_first: ClassVar[bool] = True


class GradientMean(Mixing):
    """Every update takes the mean gradient of all groups, weighed by the sizes of their batches."""

    name: ClassVar[str] = "all-reduce"
    averages_gradients: ClassVar[bool] = True
    coded: ClassVar[Mapping[str, str]] = {PART: "all_reduce", MEAN: "all_reduce"}
    echoed: ClassVar[frozenset[str]] = frozenset({MEAN})  # or replicas would part: all must take the same mean

    def lateral(self, turns: Turns) -> Lateral:
        """Return the two steps before every update."""
        return AllReduce(turns.groups, turns.gone)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the averaging of a unit's gradients."""
        return GradientAveraging(turns.weights, unit.group, weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the part of the gradient, and of what says which parameters have one, that a group owns."""
        part = flat_layout(len(self._part(edge, turns, vectors)), vectors.read.dtype)
        return part + flat_layout(1, torch.float64) if vectors.sums and edge.name == PART else part

    def lossy(self, edge: Edge, turns: Turns, vectors: Vectors) -> int:
        """Return the gradients: what says which parameters have one is behind them."""
        part = self._part(edge, turns, vectors)
        return len(range(part.start, min(part.stop, vectors.trainable)))

    @staticmethod
    def _part(edge: Edge, turns: Turns, vectors: Vectors) -> range:
        """Return which elements of the vector an edge carries."""
        owner = turns.members.index({PART: edge.target, MEAN: edge.source}[edge.name].group)
        return part_of(owner, vectors.trainable + vectors.read.parameters, len(turns.members))


class Push(Mixing):
    """Push-sum: averaging on graphs whose edges have one direction; models are measured at z = x / w."""

    name: ClassVar[str] = "push-sum"
    averages_parameters: ClassVar[bool] = True
    keeps: ClassVar[int] = 1
    refuses: ClassVar[Mapping[str, str]] = {
        "lag": "adds up all that there is of its sums, of which a part would be under way; leave the lag out",
        "fragments": "has one weight of a group in all stages; let all mix at once",
        "random pairs": "knows how much of whose sums is where from the graph; take one-peer-exponential",
        "momentum": "pushes parameters alone, and momentum has no sum of its own; leave mixing momentum out",
        "lost groups": "would end with a group, as what it has of the sums is nobody else's; take adapt-then-combine",
    }

    def matrix(self, topology: Topology, groups: int, sizes: Sequence[int] = ()) -> PushMatrix:
        """Return how much each group sends to whom: equal shares to all its targets and itself."""
        return push_matrix(topology, groups, sizes)

    def lateral(self, turns: Turns) -> Pushing:
        """Return the rounds, of which all scale what the step did and some mix."""
        return Pushing(rounds_of(self, turns, adapt_first=True))

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the push-sum of a unit's parameters."""
        return PushSum(self.lateral(turns).rounds, unit.group, weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is mixed."""
        return flat_layout(vectors.read.mixed, vectors.read.dtype)


class Diffusion(Mixing):
    """Exact diffusion: averaging without the bias of unlike data, as published for gradients of now and SGD."""

    name: ClassVar[str] = "exact-diffusion"
    averages_parameters: ClassVar[bool] = True
    keeps: ClassVar[int] = 1
    refuses: ClassVar[Mapping[str, str]] = {
        "period": "cancels what mixing leaves at every update, and is not published for rarer rounds; leave the period "
        "out, or take gradient-tracking",
        "lag": "cancels how far the last mixing moved a group, which a lag would not know; leave the lag out",
        "turns": "needs one symmetric matrix for all turns; take a topology that stays, or gradient-tracking",
        "fragments": "cancels what mixing leaves at every update; let all stages mix at once",
        "momentum": "corrects parameters alone; leave mixing momentum out",
        "lost groups": "remembers mixings that add up to nothing over all groups alone, so that others would be off "
        "for ever; take adapt-then-combine",
    }

    def lateral(self, turns: Turns) -> Averaging:
        """Return the rounds, in each of which neighbours mix."""
        return rounds_of(self, turns, adapt_first=True)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the exact diffusion of a unit's parameters."""
        return ExactDiffusion(self.lateral(turns), weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is mixed."""
        return flat_layout(vectors.read.mixed, vectors.read.dtype)


class Tracked(Mixing):
    """Gradient tracking: steps by an estimate of the mean gradient of all; published for gradients of now and SGD."""

    name: ClassVar[str] = "gradient-tracking"
    averages_parameters: ClassVar[bool] = True
    keeps: ClassVar[int] = 2
    refuses: ClassVar[Mapping[str, str]] = {
        "lag": "needs what tracks the gradient from the update before; leave the lag out",
        "fragments": "tracks at every update, and is held against loops where all stages mix at once; let them",
        "momentum": "mixes what tracks the gradient, and momentum follows from it; leave mixing momentum out",
        "lost groups": "tracks gradients that a lost group had, which the others would go on with for ever; take "
        "adapt-then-combine",
        "sums": "tracks means over a batch, and knows no counts; take a loss that is a mean",
        "sparse gradients": "tracks gradients of all numbers",
    }

    def lateral(self, turns: Turns) -> Tracking:
        """Return the rounds, of which all track and some mix."""
        return Tracking(rounds_of(self, turns, adapt_first=False))

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the tracking of a unit's gradients, and the averaging of its parameters."""
        return GradientTracking(self.lateral(turns).rounds, weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is mixed, the one that tracks the gradient, and of which parameters there is one."""
        lengths = vectors.read.mixed, vectors.read.trained, vectors.read.parameters
        return tuple(spec for numel in lengths for spec in flat_layout(numel, vectors.read.dtype))


def rounds_of(mixing: Mixing, turns: Turns, *, adapt_first: bool) -> Averaging:
    """Return when neighbours mix.

    Args:
        mixing: theirs.
        turns: of the run.
        adapt_first: whether they mix what an update made, or what it began with.

    Raises:
        ConfigError: the mixing refuses such turns, or there would be none.
    """
    if turns.period != 1:
        mixing.refuse("period", f"mixing.period: {turns.period}")
    if turns.lag:
        mixing.refuse("lag", f"mixing.lag: {turns.lag}")
    if len(turns.matrix.matrices) > 1:
        mixing.refuse("turns", f"matrices in turn: {len(turns.matrix.matrices)}")
    if turns.fragments > 1:
        mixing.refuse("fragments", "mixing.fragments: true")
    return turns.rounds(Averaging, adapt_first=adapt_first)


MIXINGS: tuple[Mixing, ...] = (
    Mixing(),
    CombineWhileAdapt(),
    AdaptThenCombine(),
    GradientMean(),
    Pairwise(),
    Outer(),
    NoLoCo(),
    Push(),
    Diffusion(),
    Tracked(),
    Choco(),
)
"""Those that have a name."""

NONE = MIXINGS[0]

AVERAGINGS = (CombineWhileAdapt, AdaptThenCombine)
"""Those that know lag rules and parts; what inherits from one may do anything else."""


def has_name(mixing: Mixing) -> bool:
    """Return whether a mixing is one of those, and no class that inherits from one."""
    return type(mixing) in map(type, MIXINGS)
