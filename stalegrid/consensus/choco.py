"""CHOCO: groups average what they know of each other, and send only what has changed, which a codec may make smaller.

Does not know: codecs, when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Koloskova, Stich and Jaggi, arXiv 1902.00340, Algorithm 2 (CHOCO-SGD).  With x the parameters of group i after
its step, w the mixing matrix, and Q the codec of the messages, which all know of i the same xh_i, at first 0::

    q_i = Q(x_i - xh_i)                  sent to all neighbours
    xh_j <- xh_j + q_j                   of the neighbours, and of i itself
    x_i <- x_i + gamma sum_j w_ij (xh_j - xh_i)

As everybody takes the same xh for the same group, and w is symmetric, what is added has the sum 0 over all
groups: their mean stays what it is, to rounding, whatever Q loses.  Where Q loses nothing, xh_j is x_j to rounding, and
gamma = 1 is adapt-then-combine.  What was lost stays in x - xh and is sent later, so Q needs no feedback; the more it
loses the smaller gamma must be, and the paper's bound for it is far below what works.

Running statistics, of which the paper knows nothing, stay each group's own.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.consensus.mixing import Exchange, Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import PARAMETERS, Averaging
from stalegrid.errors import ConfigError, StalenessExceeded
from stalegrid.objects import State
from stalegrid.programs import Action, Edge, Kind, Layout, Message, Unit, flat_layout
from stalegrid.stages import Weights


@dataclass(frozen=True)
class Choco(Mixing):
    """Parameters move towards those that are known of the neighbours, which are sent what has changed.

    Args:
        gamma: how far, above 0 and at most 1.
    """

    gamma: float = 1.0

    name: ClassVar[str] = "choco"
    averages_parameters: ClassVar[bool] = True
    coded: ClassVar[Mapping[str, str]] = {PARAMETERS: "parameters"}
    echoed: ClassVar[frozenset[str]] = frozenset({PARAMETERS})
    sends_differences: ClassVar[bool] = True

    def __post_init__(self) -> None:
        if not 0 < self.gamma <= 1:
            raise ConfigError(f"gamma of choco is above 0 and at most 1 (mixing: {self.text}), as in choco,gamma=0.5")

    def lateral(self, turns: Turns) -> Averaging:
        """Return the turns in which groups exchange.

        Raises:
            ConfigError: what groups know of each other would not be alike, or nobody has said what happens then.
        """
        self._check(turns)
        rounds = Averaging(turns.mixing, True, turns.period, 0, turns.updates, turns.begins)
        if all(rounds.turn(n) is None for n in range(turns.begins, turns.updates)):
            raise ConfigError(
                f"the groups would never mix (period: {turns.period}, updates: {turns.updates}); train longer, or take "
                "mixing none"
            )
        return rounds

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange:
        """Return the exchange of a unit's parameters."""
        return Compressed(self.lateral(turns), weights, self.gamma)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return what has changed of the parameters."""
        return flat_layout(vectors.read.trained, vectors.read.dtype)

    def lossy(self, edge: Edge, turns: Turns, vectors: Vectors) -> int:
        """Return all of it."""
        return vectors.read.trained

    def remembered(self, turns: Turns, vectors: Vectors) -> int:
        """Return the bytes of what is known of a group and its neighbours, and of what it has just sent."""
        most = max(len(turns.matrix.neighbours(s)) for s in range(turns.groups))
        return (2 + most) * vectors.read.trained * vectors.read.dtype.itemsize

    @staticmethod
    def _check(turns: Turns) -> None:
        if turns.fragments > 1:
            raise ConfigError(
                "choco has no published form in which stages take turns (mixing.fragments: true); leave it out"
            )
        if len(turns.matrix.matrices) > 1:
            raise ConfigError(
                f"choco needs the same neighbours in every turn, who know of each other all that was sent (topology: "
                f"of {len(turns.matrix.matrices)} turns); take another one, such as ring or exponential"
            )
        if turns.lag:
            raise ConfigError(f"choco has no published form with a lag (mixing.lag: {turns.lag}); leave it out")
        if len(set(turns.matrix.sizes)) > 1:
            shown = ",".join(map(str, turns.matrix.sizes))
            raise ConfigError(f"choco takes groups to be alike (batch_size: {shown}); give all groups one size")


class Compressed:
    """The exchange of one unit with the same stage of other groups.

    Args:
        rounds: who exchanges with whom, when.
        weights: of this unit.
        gamma: how far parameters move towards those of the neighbours.
    """

    def __init__(self, rounds: Averaging, weights: Weights, gamma: float) -> None:
        self._rounds = rounds
        self._weights = weights
        self._gamma = gamma
        self._known: dict[int, Tensor] = {}  # xh of the neighbours, by group
        self._own: Tensor | None = None  # xh of this unit, as the neighbours know it
        self._sent = torch.empty(0)

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Send what has changed, or take what has and move."""
        if action.kind is Kind.MIX:
            self._mix(action.index, inbox)
            return []
        x = self._parameters()
        self._sent = x.clone() if self._own is None else x - self._own
        return [Message(tag, self._weights.version, (self._sent,)) for tag in action.sends]

    def arrives(self, message: Message) -> None:
        """Take what was sent as the neighbours do."""
        self._sent = message.tensors[0]

    def state_dict(self) -> State:
        """Return what is known of this unit and its neighbours."""
        return {"own": self._own, "known": self._known}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._own, self._known = state["own"], state["known"]

    def _parameters(self) -> Tensor:
        return self._weights.flat[: self._weights.trained]

    def _mix(self, update: int, inbox: Sequence[Message]) -> None:
        turn = self._rounds.turn(update)
        assert turn is not None
        shares = self._rounds.mixing.weights(turn)
        own = self._own = self._sent if self._own is None else self._own + self._sent
        delta = torch.zeros_like(own)
        # In the order of the sources, which is that of the program and not of arrival.
        for message in inbox:
            known = self._take(message)
            source, target = message.tag.edge.source.group, message.tag.edge.target.group
            delta += (known - own).mul_(float(shares[target, source]))
        self._parameters().add_(delta.mul_(self._gamma))

    def _take(self, message: Message) -> Tensor:
        if message.version != self._weights.version:
            raise StalenessExceeded(
                f"{message.tag} carries parameters of version {message.version}; those here are of "
                f"{self._weights.version}"
            )
        source, sent = message.tag.edge.source.group, message.tensors[0]
        self._known[source] = self._known[source] + sent if source in self._known else sent.clone()
        return self._known[source]
