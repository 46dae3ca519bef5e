"""The mixings that have a name: nothing, parameters in one of two orders, gradients, or outer optimizers.

Does not know: methods, engines.
"""

from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.consensus.allreduce import GradientAveraging
from stalegrid.consensus.lag_rules import averaging, check_rule, elements, remembered
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.noloco import NoLoCo
from stalegrid.consensus.outer import Outer
from stalegrid.consensus.pairwise import Pairwise
from stalegrid.consensus.rounds import MEAN, PART, AllReduce, Averaging
from stalegrid.programs import Edge, Lateral, Layout, Unit, flat_layout
from stalegrid.stages import Weights


class CombineWhileAdapt(Mixing):
    """Parameters of the start of a round travel while it is computed."""

    name: ClassVar[str] = "combine-while-adapt"
    averages_parameters: ClassVar[bool] = True
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


class AdaptThenCombine(CombineWhileAdapt):
    """Parameters travel after the optimizer's step."""

    name: ClassVar[str] = "adapt-then-combine"
    adapt_first: ClassVar[bool] = True


class GradientMean(Mixing):
    """Every update takes the mean gradient of all groups, weighed by the sizes of their batches."""

    name: ClassVar[str] = "all-reduce"
    averages_gradients: ClassVar[bool] = True

    def lateral(self, turns: Turns) -> Lateral:
        """Return the two steps before every update."""
        return AllReduce(turns.groups, turns.gone)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the averaging of a unit's gradients."""
        return GradientAveraging(turns.weights, unit.group, weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the part of the gradient, and of what says which parameters have one, that a group owns."""
        owner = turns.members.index({PART: edge.target, MEAN: edge.source}[edge.name].group)
        size, rest = divmod(vectors.trainable + vectors.read.parameters, len(turns.members))
        part = flat_layout(size + (owner < rest), vectors.read.dtype)
        return part + flat_layout(1, torch.float64) if vectors.sums and edge.name == PART else part


MIXINGS: tuple[Mixing, ...] = (
    Mixing(),
    CombineWhileAdapt(),
    AdaptThenCombine(),
    GradientMean(),
    Pairwise(),
    Outer(),
    NoLoCo(),
)
"""Those that have a name."""

NONE = MIXINGS[0]

AVERAGINGS = (CombineWhileAdapt, AdaptThenCombine)
"""Those that know lag rules and parts; what inherits from one may do anything else."""


def has_name(mixing: Mixing) -> bool:
    """Return whether a mixing is one of those, and no class that inherits from one."""
    return type(mixing) in map(type, MIXINGS)
