"""An outer optimizer over the mean of groups that train apart: DiLoCo, and what follows from it.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Douillard et al., DiLoCo, arXiv 2311.08105.  Every H updates, with ``w_s`` what groups had when they shared::

    delta = saved - mean_s w_s,     v <- mu v + delta,     outer = saved - eta (delta + mu v)
    w_s <- outer + alpha (w_s - outer),     saved <- outer

The mean is that of one's own row of the mixing matrix, over all groups where all are joined: then all have the same
``saved`` and ``v``, to the bit, and three groups or more make it in parts (:mod:`stalegrid.consensus.agreeing`).  With
a lag it comes some updates after it was shared, and alpha says how much is kept of what a group has trained since
(Douillard et al., Streaming DiLoCo, arXiv 2501.18512).  A group alone does the same
(Kallusky et al., SNOO, arXiv 2510.15830).

Running statistics have no outer optimizer: they are averaged, see :mod:`stalegrid.consensus.statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.consensus.agreeing import Agreeing, InParts, InWhole, in_parts, part_of
from stalegrid.consensus.correlation import RHO, Correlation
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import PARAMETERS_MEAN, PARAMETERS_PART, Reduced, Together
from stalegrid.consensus.snapshots import Snapshots
from stalegrid.errors import ConfigError
from stalegrid.objects import State
from stalegrid.programs import Action, Edge, Kind, Layout, Message, Unit, flat_layout
from stalegrid.stages import Weights

REFUSES = {
    "momentum": "has a momentum of its own, and mixes none of the optimizers of groups; leave it out",
    "lost groups": "remembers what groups have begun with, which one that comes back would not; leave it out, or take "
    "a mixing without memory",
}
"""What outer optimizers cannot be combined with, and why; see :class:`stalegrid.consensus.mixing.Mixing`."""

RATE = "effective_outer_rate"
"""What records call the outer rate with what momentum makes of it."""


@dataclass(frozen=True)
class Outer(Mixing):
    """Nesterov's momentum over the way that the mean of the groups has gone.

    Args:
        rate: eta, of the outer optimizer.
        momentum: mu, of the outer optimizer.
        keep: alpha, what a group keeps of its distance from what all begin with anew.

    Raises:
        ConfigError: one is out of its range.
    """

    name: ClassVar[str] = "outer"
    refuses: ClassVar[Mapping[str, str]] = REFUSES
    averages_parameters: ClassVar[bool] = True
    topology: ClassVar[str] = "complete"
    alone: ClassVar[bool] = True
    keeps: ClassVar[int] = 3
    tells: ClassVar[tuple[str, ...]] = (RHO, RATE)

    rate: float = 0.7
    momentum: float = 0.9
    keep: float = 0.0

    def __post_init__(self) -> None:
        check_outer(self.text, self.rate, self.momentum)
        if not 0 <= self.keep <= 1:
            raise ConfigError(f"a group keeps a share of its own, from 0 to 1 (mixing: {self.text})")

    def lateral(self, turns: Turns) -> Together:
        """Return the turns of the outer optimizer.

        Raises:
            ConfigError: what was shared would come when it is shared again, or there would be no turn.
        """
        return turns.rounds(Reduced if in_parts(turns) else Together, adapt_first=True)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the outer optimizer of a unit."""
        rounds, sizes = self.lateral(turns), turns.matrix.sizes
        if isinstance(rounds, Reduced):
            row = rounds.mixing.weights(0)[unit.group]
            return OuterStep(self, InParts(dict(enumerate(map(float, row))), sizes, unit.group, weights), weights)
        return OuterStep(self, InWhole(Snapshots(rounds, unit), sizes, weights), weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is averaged, or a part of it, with running statistics behind those that are not."""
        trained, mixed = vectors.read.trained, vectors.read.mixed
        match edge.name:
            case name if name == PARAMETERS_PART:
                elements = len(part_of(edge.target.group, trained, turns.groups)) + mixed - trained
            case name if name == PARAMETERS_MEAN:
                elements = len(part_of(edge.source.group, trained, turns.groups))
            case _:
                elements = mixed
        return flat_layout(elements, vectors.read.dtype)


class OuterStep:
    """The outer optimizer of one unit.

    Args:
        numbers: eta, mu and alpha.
        agreeing: how the mean of all comes about.
        weights: of the unit.
    """

    def __init__(self, numbers: Outer, agreeing: Agreeing, weights: Weights) -> None:
        self._numbers = numbers
        self._agreeing = agreeing
        self._weights = weights
        self._saved = weights.flat[: weights.trained].clone()
        self._velocity = torch.zeros_like(self._saved)
        self._correlation = Correlation()

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Share this unit's vector, reduce a part of all, or make the outer step."""
        if action.kind is not Kind.MIX:
            return self._agreeing.send(action, inbox)
        agreed = self._agreeing.agree(action, inbox)
        self._step(agreed.mean)
        statistics = self._weights.flat[self._weights.trained : self._weights.mixed]
        statistics += agreed.pulled(statistics)
        return []

    def told(self) -> tuple[float, float]:
        """Return rho_1, and the rate that momentum makes of eta where pseudo-gradients go on so."""
        rho, numbers = self._correlation.told(), self._numbers
        # Nesterov's: mu times what all pseudo-gradients before have left, beside the new one.
        return rho, numbers.rate * (1 + numbers.momentum / (1 - numbers.momentum * rho))

    def state_dict(self) -> State:
        """Return what the outer optimizer remembers."""
        return {
            "saved": self._saved,
            "velocity": self._velocity,
            "snapshots": self._agreeing.state_dict(),
            "correlation": self._correlation.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._saved, self._velocity = state["saved"], state["velocity"]
        self._agreeing.load_state_dict(state["snapshots"])
        self._correlation.load_state_dict(state["correlation"])

    def _step(self, mean: Tensor) -> None:
        numbers, own = self._numbers, self._weights.flat[: self._weights.trained]
        delta = self._saved - mean
        # One operation after the other: fused ones round otherwise.
        self._velocity.mul_(numbers.momentum).add_(delta)
        self._saved -= (delta + self._velocity * numbers.momentum) * numbers.rate
        if numbers.keep:
            own.copy_(self._saved + (own - self._saved) * numbers.keep)
        else:
            own.copy_(self._saved)
        self._correlation.add(delta)


def check_outer(text: str, rate: float, momentum: float) -> None:
    """Check the numbers of an outer optimizer.

    Raises:
        ConfigError: one is out of its range.
    """
    if not rate > 0:
        raise ConfigError(f"the rate of an outer optimizer is above 0 (mixing: {text})")
    if not 0 <= momentum < 1:
        raise ConfigError(f"the momentum of an outer optimizer is from 0 to below 1 (mixing: {text})")
