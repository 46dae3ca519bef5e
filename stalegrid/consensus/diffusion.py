"""Exact diffusion of the parameters of one stage: averaging that groups with unlike data do not pull off the minimum.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Yuan, Ying, Zhao and Sayed 2017, arXiv 1702.05122.  With psi' what the optimizer's step made of w (published for
SGD, ``psi' = w - lr g(w)``; any other is an experiment), and psi what it made one update before, at first w itself::

    phi_s = psi'_s + (w_s - psi_s),    w_s = phi_s + sum_{r != s} (P_sr / 2) (phi_r - phi_s)

which is ``w = (I + P)/2 phi`` as differences.  What is kept is ``w - psi``, how far the last mixing moved the group:
put on the step it cancels the bias that unlike gradients leave in plain averaging at a constant rate.  Its mean over
groups is 0, so that mixing keeps the mean.

It is published for gradients at the weights of now.  With those of earlier updates (a pipeline) no guarantee is known.

Running statistics have no steps: they are mixed by ``(I + P)/2`` alone.
"""

from collections.abc import Sequence

import torch

from stalegrid.consensus.gaps import gap_to
from stalegrid.consensus.rounds import Averaging
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights


class ExactDiffusion:
    """The exchange of one unit with the same stage of other groups.

    Args:
        rounds: who mixes with whom, after the optimizer's step.
        weights: of this unit.
    """

    def __init__(self, rounds: Averaging, weights: Weights) -> None:
        self._rounds = rounds
        self._weights = weights
        self._moved = torch.zeros_like(self._trained)  # w - psi
        self._made = self._own = torch.empty(0)  # psi' and phi, between share and mix

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Correct what the step made and share it, or mix it."""
        if action.kind is Kind.MIX:
            self._mix(action.index, inbox)
            return []
        self._made, self._own = self._trained.clone(), self._weights.flat[: self._weights.mixed].clone()
        self._own[: self._weights.trained] += self._moved
        return [Message(tag, self._weights.version, (self._own,)) for tag in action.sends]

    def state_dict(self) -> State:
        """Return how far the last mixing moved the group."""
        return {"moved": self._moved}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._moved = state["moved"]

    @property
    def nbytes(self) -> int:
        """Bytes kept from one round to the next."""
        return self._moved.nbytes

    @property
    def _trained(self) -> torch.Tensor:
        return self._weights.flat[: self._weights.trained]

    def _mix(self, update: int, inbox: Sequence[Message]) -> None:
        turn = self._rounds.turn(update)
        assert turn is not None
        matrix = self._rounds.mixing.weights(turn)
        delta = torch.zeros_like(self._own)
        for message in inbox:
            source, target = message.tag.edge.source.group, message.tag.edge.target.group
            delta += gap_to(message.tensors[0], self._own, self._weights.statistics).mul_(
                float(matrix[target, source]) / 2
            )
        self._weights.flat[: self._weights.mixed] = self._own + delta
        self._moved = self._trained - self._made
        self._made = self._own = torch.empty(0)
