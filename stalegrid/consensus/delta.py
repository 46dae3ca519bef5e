"""Averaging what is late so that the mean over groups stays: the lag rule ``delta``.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), which lags are stable
(:mod:`stalegrid.consensus.stability` does), other stages.

Source: Agora, and AsyncMesh, arXiv 2601.22442.  A snapshot of one's own and the neighbours' vector of round n - c is
mixed when the neighbours' arrive, and what mixing would have changed then is added now::

    w_s(n+1) = w'_s + sum_{r != s} P_sr (w_r(n-c) - w_s(n-c))

What groups add sums to zero over them where P keeps their mean, so the mean moves by their own steps alone, to
rounding.  With a lag of 0 the snapshot is what ``own-current`` measures gaps against, to the bit.  The price is one's
own snapshots of the rounds that are under way, and a limit of stability that a convex combination does not have.
Momentum that is mixed too is part of the vector.  Running statistics follow the same rule: what all groups count alike
has no gap at a snapshot, and is not held back.
"""

from collections.abc import Callable, Sequence

from torch import Tensor

from stalegrid.consensus.averaging import ParameterAveraging
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.rounds import Averaging
from stalegrid.consensus.sent import Sent
from stalegrid.objects import State
from stalegrid.programs import Message
from stalegrid.stages import Weights


class DeltaAveraging(ParameterAveraging):
    """Adds what mixing would have changed at a snapshot; arguments as for :class:`ParameterAveraging`."""

    def __init__(
        self,
        rounds: Averaging,
        weights: Weights,
        momentum: Momentum | None = None,
        pull: Callable[[Tensor, float], Tensor] = Tensor.mul_,
        sent: Sent | None = None,
        stage: int = 0,
    ) -> None:
        super().__init__(rounds, weights, momentum, pull, sent, stage)
        self._snapshots: dict[int, Tensor] = {}  # what was sent, by the round in which it was

    def state_dict(self) -> State:
        """Return the snapshots of rounds that are under way."""
        return super().state_dict() | {"snapshots": self._snapshots}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        super().load_state_dict(state)
        self._snapshots = state["snapshots"]

    @property
    def nbytes(self) -> int:
        """Bytes of the snapshots, and of what is kept to know parts."""
        return super().nbytes + sum(piece.nbytes for piece in self._snapshots.values())

    def _keep(self, update: int, vector: Tensor, piece: Tensor | None) -> None:
        if piece is not None:
            self._snapshots[update] = piece

    def _against(self, update: int, turn: int) -> Tensor:
        return self._snapshots[update - self._rounds.lag]

    def _mix(self, update: int, inbox: Sequence[Message]) -> None:
        # A group that has come back has no snapshot of before, and nobody mixes with it until it has.
        if inbox:
            super()._mix(update, inbox)
        self._snapshots.pop(update - self._rounds.lag, None)
