"""The mixings that have a name: nothing, parameters in one of two orders, or gradients.

Does not know: methods, engines.
"""

from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.consensus.allreduce import GradientAveraging
from stalegrid.consensus.averaging import ParameterAveraging
from stalegrid.consensus.choco import Choco
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import MEAN, PARAMETERS, PART, AllReduce, Averaging
from stalegrid.errors import ConfigError
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
            ConfigError: the period or the lag is none, or there would be no turn.
        """
        rounds = Averaging(turns.mixing, self.adapt_first, turns.period, turns.lag, turns.updates, turns.begins)
        if all(rounds.turn(n) is None for n in range(turns.begins, turns.updates)):
            raise ConfigError(
                f"the groups would never mix (period: {turns.period}, lag: {turns.lag}, updates: {turns.updates}); "
                "train longer, or take mixing none"
            )
        return rounds

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the averaging of a unit's parameters."""
        return ParameterAveraging(self.lateral(turns), weights, momentum, self.pull)

    def pull(self, gap: Tensor, share: float) -> Tensor:
        """Return what a unit adds to its own vector for one neighbour; override it for another rule than the mean.

        Args:
            gap: the neighbour's vector minus one's own: parameters, running statistics, and momentum where it is mixed
                too; may be changed.
            share: of the neighbour in this turn, from the mixing matrix.
        """
        return gap.mul_(share)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is mixed, and the momentum behind it."""
        return flat_layout(vectors.read.mixed + vectors.momentum * vectors.trainable, vectors.read.dtype)

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
        size, rest = divmod(vectors.trainable + vectors.read.parameters, len(turns.members))
        start = owner * size + min(owner, rest)
        return range(start, start + size + (owner < rest))


MIXINGS: tuple[Mixing, ...] = (Mixing(), CombineWhileAdapt(), AdaptThenCombine(), GradientMean(), Choco())
"""Those that have a name."""

NONE = MIXINGS[0]


def has_name(mixing: Mixing) -> bool:
    """Return whether a mixing is one of those, and no class that inherits from one."""
    return type(mixing) in map(type, MIXINGS)
