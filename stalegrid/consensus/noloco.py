"""An outer optimizer over the mean of a pair of groups, drawn anew at every turn: NoLoCo.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), who is drawn, other stages, how messages travel.

Source: Kolehmainen et al., NoLoCo, arXiv 2506.10911, and the authors' code, whose defaults are those of eta and mu.
Every H updates, with ``w`` what groups have, ``phi`` what each began with
after its last turn, and the means over a group and its partner::

    m <- mu m + eta mean(w - phi) + eta (mean(phi) - phi_own),     phi <- phi + m,     w <- phi

Each sends w and phi: twice the parameters, to one other group.  Whoever is left over has itself as its partner.

Running statistics have no outer optimizer: they are averaged, see :mod:`stalegrid.consensus.statistics`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from stalegrid.consensus.correlation import RHO, Correlation
from stalegrid.consensus.middle import middle
from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.outer import RATE, REFUSES, check_outer
from stalegrid.consensus.rounds import Together
from stalegrid.consensus.snapshots import Snapshots
from stalegrid.consensus.statistics import pulled
from stalegrid.errors import ConfigError
from stalegrid.objects import State
from stalegrid.programs import Action, Edge, Kind, Layout, Message, Unit, flat_layout
from stalegrid.stages import Weights


@dataclass(frozen=True)
class NoLoCo(Mixing):
    """Momentum over the way that a pair of groups has gone, and towards each other.

    Args:
        rate: eta, of the outer optimizer.
        momentum: mu, of the outer optimizer.

    Raises:
        ConfigError: one is out of its range.
    """

    name: ClassVar[str] = "noloco"
    refuses: ClassVar[Mapping[str, str]] = REFUSES
    averages_parameters: ClassVar[bool] = True
    topology: ClassVar[str] = "random-pairs"
    alone: ClassVar[bool] = True
    keeps: ClassVar[int] = 3
    tells: ClassVar[tuple[str, ...]] = (RHO, RATE)

    rate: float = 0.7
    momentum: float = 0.9

    def __post_init__(self) -> None:
        check_outer(self.text, self.rate, self.momentum)

    def lateral(self, turns: Turns) -> Together:
        """Return the turns of the outer optimizer.

        Raises:
            ConfigError: there is a lag, which would undo what groups have trained since, or there would be no turn.
        """
        if turns.lag:
            raise ConfigError(
                f"{self.name} goes on from what its partner has now, and has no lag (lag: {turns.lag}); take 0, or "
                "mixing outer"
            )
        return turns.rounds(Together, adapt_first=True)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the outer optimizer of a unit."""
        return PairStep(self, Snapshots(self.lateral(turns), unit), turns.matrix.sizes, weights)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is averaged, and where its parameters began behind it."""
        return flat_layout(vectors.read.mixed + vectors.read.trained, vectors.read.dtype)


class PairStep:
    """The outer optimizer of one unit.

    Args:
        numbers: eta and mu.
        snapshots: of the unit.
        sizes: samples of every group's batch.
        weights: of the unit.
    """

    def __init__(self, numbers: NoLoCo, snapshots: Snapshots, sizes: Sequence[int], weights: Weights) -> None:
        self._numbers = numbers
        self._snapshots = snapshots
        self._sizes = sizes
        self._weights = weights
        self._began = weights.flat[: weights.trained].clone()
        self._velocity = torch.zeros_like(self._began)
        self._correlation = Correlation()

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Share this unit's vector and where it began, or make the outer step."""
        weights = self._weights
        trained, mixed = weights.trained, weights.mixed
        if action.kind is Kind.SHARE:
            return self._snapshots.share(action, weights.version, torch.cat([weights.flat[:mixed], self._began]))
        met = self._snapshots.meet(action, inbox)
        began = {s: vector[mixed:] for s, vector in met.vectors.items()}
        gone = middle({s: v[:trained] - began[s] for s, v in met.vectors.items()}, met.shares, self._sizes)
        apart = middle(began, met.shares, self._sizes) - self._began
        # One operation after the other: fused ones round otherwise.
        self._velocity.mul_(self._numbers.momentum).add_(gone * self._numbers.rate).add_(apart * self._numbers.rate)
        self._began += self._velocity
        weights.flat[:trained] = self._began
        self._correlation.add(gone)
        then = {s: vector[trained:mixed] for s, vector in met.vectors.items()}
        weights.flat[trained:mixed] += pulled(weights.flat[trained:mixed], then, met.shares, met.own)
        return []

    def told(self) -> tuple[float, float]:
        """Return rho_1, and the rate that momentum makes of eta where pairs go on so."""
        rho = self._correlation.told()
        return rho, self._numbers.rate / (1 - self._numbers.momentum * rho)

    def state_dict(self) -> State:
        """Return what the outer optimizer remembers."""
        return {
            "began": self._began,
            "velocity": self._velocity,
            "snapshots": self._snapshots.state_dict(),
            "correlation": self._correlation.state_dict(),
        }

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._began, self._velocity = state["began"], state["velocity"]
        self._snapshots.load_state_dict(state["snapshots"])
        self._correlation.load_state_dict(state["correlation"])
