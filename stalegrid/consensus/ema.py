"""Averaging what is late, with an estimate of how far a group has gone since: the lag rule ``ema``.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), how many parts there are, other stages.

Source: AsyncMesh, arXiv 2601.22442.  For the elements I of a turn, ``tau = c`` updates after their snapshot, with the
mean over neighbours of snapshots, lambda = 1, and ``b`` the difference itself when an element is mixed first::

    b[I] <- beta b[I] + (1 - beta) (w - snap)[I]
    w[I] <- mean[I] + b[I]

It is computed as a difference to ``w``, which is what the rule ``delta`` adds, and then how much the usual way of a
group differs from that of these tau updates::

    w[I] <- w[I] + (mean - snap)[I] + (b - (w - snap))[I]

So the first cycle is ``delta``, to the bit, and so are running statistics always: an estimate of how a counter goes on
would be no counter.  The price beside that of ``delta`` is one vector.  The mean over groups is not preserved.

beta rises from 0.5 to 0.99 by a cosine after 1,000 updates.  That it has come to 0.99 with the last update that is
planned, and that the first time is meant for each element and not for the run, is left open by the source and chosen
here.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from stalegrid.consensus.delta import DeltaAveraging
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.sent import Sent
from stalegrid.objects import State
from stalegrid.stages import Weights

_FROM, _TO, _AFTER = 0.5, 0.99, 1000


def beta_of(update: int, planned: int) -> float:
    """Return how much of the estimate stays.

    Args:
        update: in which it is renewed.
        planned: N.
    """
    if update < _AFTER:
        return _FROM
    share = (update - _AFTER) / (planned - _AFTER)
    return _FROM + (_TO - _FROM) * (1.0 - math.cos(math.pi * share)) / 2.0


class EmaAveraging(DeltaAveraging):
    """Adds to the mean of snapshots how far a group usually goes in the time that they are late.

    Args:
        rounds: who mixes with whom, when.
        weights: of this unit.
        pull: (gap to a neighbour, its share) -> what is added for it; the gap may be changed.
        sent: what of the vector travels in which turn.
        begun: turn from which on every element has been mixed before.
        beta: update -> how much of the estimate stays.
    """

    def __init__(
        self,
        rounds: Averaging,
        weights: Weights,
        pull: Callable[[Tensor, float], Tensor],
        sent: Sent,
        begun: int,
        beta: Callable[[int], float],
    ) -> None:
        super().__init__(rounds, weights, None, pull, sent)
        self._begun = begun
        self._beta = beta
        self._usual = torch.zeros_like(weights.flat[: weights.mixed])  # b

    def state_dict(self) -> State:
        """Return the estimate too."""
        return super().state_dict() | {"usual": self._usual}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        super().load_state_dict(state)
        self._usual = state["usual"]

    @property
    def nbytes(self) -> int:
        """Bytes of the estimate too."""
        return super().nbytes + self._usual.nbytes

    def _change(self, update: int, turn: int, against: Tensor, pulled: Tensor) -> Tensor:
        gone = self._sent.take(self._weights.flat[: self._weights.mixed], turn) - against
        usual = gone
        if turn >= self._begun:
            beta = self._beta(update)
            usual = self._sent.take(self._usual, turn) * beta + gone * (1.0 - beta)
        self._sent.put(self._usual, usual, turn)
        more = usual - gone
        more[self._sent.statistics] = 0.0
        return pulled + more
