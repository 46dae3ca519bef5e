"""Gradient tracking of one stage: each group steps by an estimate of the mean gradient of all, not by its own.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Di Lorenzo and Scutari 2016; Nedic, Olshevsky and Shi 2017, arXiv 1607.03218 (DIGing).  With q a second vector
that travels, and g the gradient of a group's own batch::

    q_s(n) = sum_r P_sr q_r(n-1) - g_s(n-1) + g_s(n),    q_s(0) = g_s(0)
    w_s(n+1) = sum_r P_sr w_r(n) + u_s(n),               u_s the optimizer's step with q_s(n) for its gradient

both sums as differences to one's own.  So the mean over groups of q is that of g, whatever has been mixed.  The step
is published for SGD, ``u = -lr q``; any other is an experiment.  Weight decay, a function of a group's own
weights, is no part of what is tracked.  P may be another one in each turn, and that of a round without mixing is I: the
source covers both.  It is published for gradients at the weights of now.  With those of earlier updates (a pipeline)
no guarantee is known.

A parameter that a batch does not use has no gradient, which is not one of zero.  It gets no step, not even by weight
decay, until a batch of this group, or of one from which q has come, has used it; from then on there is something to
track, and no gradient is one of zero.

Parameters and running statistics are mixed as by :mod:`stalegrid.consensus.averaging`, combine-while-adapt.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from stalegrid.consensus.gaps import gap_to
from stalegrid.consensus.rounds import Averaging
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights, part


class GradientTracking:
    """The exchange of one unit with the same stage of other groups.

    Args:
        rounds: who mixes with whom, with what a round began with.
        weights: of this unit, whose gradients are replaced by what tracks their mean.
    """

    def __init__(self, rounds: Averaging, weights: Weights) -> None:
        self._rounds = rounds
        self._weights = weights
        trained = weights.flat[: weights.trained]
        self._tracked, self._gradient = torch.zeros_like(trained), torch.zeros_like(trained)  # q and g
        self._there = trained.new_zeros(len(weights.trainable()))  # 1 for each parameter that something is tracked of
        self._own = torch.empty(0)  # what this unit has shared, then what mixing will add to it

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Share, take the next direction as the gradient, or mix parameters."""
        mixed = self._weights.flat[: self._weights.mixed]
        if action.kind is Kind.SHARE:
            self._own = mixed.clone()
            sent = self._own, self._tracked, self._there
            return [Message(tag, self._weights.version, sent) for tag in action.sends]
        if action.kind is Kind.REDUCE:
            self._track(action.index, inbox)
            self._step_by_it()
        else:
            mixed += self._own
            self._own = torch.empty(0)
        return []

    def state_dict(self) -> State:
        """Return what is tracked, and the gradient that is in it."""
        return {"tracked": self._tracked, "gradient": self._gradient, "there": self._there}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._tracked, self._gradient, self._there = state["tracked"], state["gradient"], state["there"]

    @property
    def nbytes(self) -> int:
        """Bytes kept from one round to the next."""
        return self._tracked.nbytes + self._gradient.nbytes

    def _track(self, update: int, inbox: Sequence[Message]) -> None:
        """Make q of this round, and what mixing will add to the parameters."""
        turn = self._rounds.turn(update)
        delta, pull = torch.zeros_like(self._own), torch.zeros_like(self._tracked)
        gradient, there = self._read()
        there = torch.maximum(there, self._there)
        for message in inbox:
            source, target = message.tag.edge.source.group, message.tag.edge.target.group
            assert turn is not None
            share = float(self._rounds.mixing.weights(turn)[target, source])
            parameters, tracked, known = message.tensors
            delta += gap_to(parameters, self._own, self._weights.statistics).mul_(share)
            pull += torch.sub(tracked, self._tracked).mul_(share)
            there = torch.maximum(there, known)
        # In this order, in which the new gradient alone is left where replicas are equal.
        self._tracked = (self._tracked + pull).sub_(self._gradient).add_(gradient)
        self._gradient, self._there, self._own = gradient, there, delta

    def _read(self) -> tuple[Tensor, Tensor]:
        """Return the gradients as a vector like that of the parameters, and of which there is one."""
        vector, parameters = torch.zeros_like(self._tracked), self._weights.trainable()
        for p in parameters:
            if p.grad is not None:
                part(vector, p).copy_(p.grad)
        return vector, vector.new_tensor([p.grad is not None for p in parameters])

    def _step_by_it(self) -> None:
        for p, there in zip(self._weights.trainable(), self._there.tolist(), strict=True):
            # A copy: corrections change gradients in place.
            p.grad = part(self._tracked, p).clone() if there else None
