"""Averaging the parameters of one stage over neighbouring groups.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Pham and Ahn, arXiv 2509.05679, whose mixing order could not be read; both orders are offered.  With ``w'`` the
parameters after the optimizer's step, ``u = w' - w(n)`` and rows of P that sum to 1, both are computed as differences,
which leave equal replicas equal to the bit and need no ``u``, summed in the order of the groups::

    combine-while-adapt   w_s(n+1) = w'_s + sum_{r != s} P_sr (w_r(n-c) - w_s(n))
    adapt-then-combine    w_s(n+1) = w'_s + sum_{r != s} P_sr (w'_r(n-c) - w'_s)

With a lag c only the neighbours' parameters are old: this is the lag rule ``own-current``.  Each row then still is a
convex combination, so no lag can make the averaging diverge; the price is that the mean over groups is not preserved
exactly.  Other rules override what gaps are measured against, and what is made of them: see
:mod:`stalegrid.consensus.delta` and :mod:`stalegrid.consensus.ema`.

Running statistics are mixed like parameters, with two exceptions.  An infinity has no mean: where one's own or a
neighbour's buffer holds one, as observers of extremes do before their first batch, the own value stays.  And what both
had alike at the same version stays too: a counter in a floating buffer would be held back by values of c updates ago.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stalegrid.consensus.gaps import gap_to
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.sent import Sent, Whole
from stalegrid.errors import StalenessExceeded
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights


class ParameterAveraging:
    """The exchange of one unit with the same stage of other groups.

    Args:
        rounds: who mixes with whom, when.
        weights: of this unit; what is trained and running statistics are mixed alike.
        momentum: the unit's momentum buffers, to mix them too; None to keep them local.
        pull: (gap to a neighbour, its share) -> what is added for it; the gap may be changed.
        sent: what of the vector travels in which turn; all of it if left out.
        stage: k of the unit.
    """

    def __init__(
        self,
        rounds: Averaging,
        weights: Weights,
        momentum: Momentum | None = None,
        pull: Callable[[Tensor, float], Tensor] = Tensor.mul_,
        sent: Sent | None = None,
        stage: int = 0,
    ) -> None:
        self._rounds = rounds
        self._weights = weights
        self._momentum = momentum
        self._pull = pull
        self._sent = Whole(weights.trained, weights.mixed) if sent is None else sent
        self._stage = stage
        self._own = torch.empty(0)  # this unit's vector and version when it last shared
        self._own_version = 0
        self._past: dict[int, Tensor] = {}  # statistics as they were shared, by round, as long as a neighbour's come

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Share this unit's vector, or mix it with the neighbours'."""
        if action.kind is Kind.MIX:
            self._mix(action.index, inbox)
            return []
        self._own_version = self._weights.version
        vector, turn = self._read(), self._turn(action.index + self._rounds.lag)
        piece = None if turn is None else self._sent.take(vector, turn)
        self._keep(action.index, vector, piece)
        assert piece is not None or not action.sends
        return [Message(tag, self._own_version, (piece,)) for tag in action.sends if piece is not None]

    def state_dict(self) -> State:
        """Return what was shared last, and statistics of what neighbours will be late with."""
        own = {"own": self._own, "version": self._own_version, "past": self._past}
        return own | self._sent.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._own, self._own_version, self._past = state["own"], state["version"], state["past"]
        self._sent.load_state_dict(state)

    @property
    def nbytes(self) -> int:
        """Bytes that are kept from one turn to the next, beside the vector that was shared last."""
        return self._sent.nbytes

    def _keep(self, update: int, vector: Tensor, piece: Tensor | None) -> None:
        """Keep what gaps will be measured against.

        Args:
            update: of the round in which it is shared.
            vector: of this unit.
            piece: what of it travels; None where nothing of this round will be mixed.
        """
        self._own = vector
        self._past[update] = vector[self._weights.trained : self._weights.mixed].clone()

    def _against(self, update: int, turn: int) -> Tensor:
        """Return what gaps are measured against: one's own of when it was last shared."""
        return self._sent.take(self._own, turn)

    def _change(self, update: int, turn: int, against: Tensor, pulled: Tensor) -> Tensor:
        """Return what is added to this unit's own.

        Args:
            update: of the round.
            turn: of mixing.
            against: what gaps were measured against.
            pulled: the sum of what neighbours pull.
        """
        return pulled

    def _turn(self, update: int) -> int | None:
        return self._rounds.turn(update, self._stage)

    def _mix(self, update: int, inbox: Sequence[Message]) -> None:
        turn = self._turn(update)
        assert turn is not None
        matrix = self._rounds.mixing.weights(turn)
        against = self._against(update, turn)
        # One's own of the time that the neighbours' are from.
        past = self._past.get(update - self._rounds.lag, against[self._sent.statistics])
        self._past = {n: kept for n, kept in self._past.items() if n > update - self._rounds.lag}
        pulled = torch.zeros_like(against)
        # In the order of the sources, which is that of the program and not of arrival.
        for message in inbox:
            self._check(message)
            source, target = message.tag.edge.source, message.tag.edge.target
            gap = gap_to(message.tensors[0], against, self._sent.statistics, past)
            pulled += self._pull(gap, float(matrix[target.group, source.group]))
        self._add(self._sent.spread(self._change(update, turn, against, pulled), turn))

    def _check(self, message: Message) -> None:
        lag = self._own_version - message.version
        if lag != self._rounds.lag:
            raise StalenessExceeded(
                f"{message.tag} carries parameters {lag} updates old; the declared lag is {self._rounds.lag}"
            )

    def _read(self) -> Tensor:
        mixed = self._weights.flat[: self._weights.mixed]
        return mixed.clone() if self._momentum is None else torch.cat([mixed, self._momentum.read()])

    def _add(self, delta: Tensor) -> None:
        mixed = self._weights.mixed
        self._weights.flat[:mixed] += delta[:mixed]
        if self._momentum is not None:
            self._momentum.add(delta[mixed:])
