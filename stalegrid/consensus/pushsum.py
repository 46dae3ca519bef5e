"""Push-sum of the parameters of one stage: averaging on graphs whose edges have one direction.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

Source: Assran et al. 2019, Stochastic Gradient Push, arXiv 1811.10792.  Group s has a vector x and a number w, 1 at
the start; gradients are taken, and models measured, at ``z = x / w``.  With A of columns that sum to 1 and d what the
optimizer's step did to z::

    x'_s = x_s(n) + d_s,    x_s(n+1) = sum_r A_sr x'_r,    w_s(n+1) = sum_r A_sr w_r(n),    z_s = x_s / w_s

So mixing leaves the sum over groups of x, and of w, and with them the mean of ``w z``.  Here the unit's weights are z,
and x is not kept.  The same is a convex combination of what groups have, computed as differences, which leave equal
replicas equal to the bit::

    z'_s = z_s(n) + d_s / w_s(n),    z_s(n+1) = z'_s + sum_{r != s} (A_sr w_r(n) / w_s(n+1)) (z'_r - z'_s)

What w is follows from the graph alone, so everybody computes it for all, and it does not travel.  Where as much comes
in as goes out (any graph of edges both ways and one degree) it is 1 for ever, and push-sum is adapt-then-combine with
Metropolis weights.

Running statistics are no sums of steps: they are mixed by the same shares as z, and not divided by w.
"""

import math
from collections.abc import Sequence

import torch

from stalegrid.consensus.gaps import gap_to
from stalegrid.consensus.rounds import Averaging
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights


class PushSum:
    """The exchange of one unit with the same stage of other groups.

    Args:
        rounds: who sends to whom, when, after the optimizer's step.
        group: s of this unit.
        weights: of this unit.
    """

    def __init__(self, rounds: Averaging, group: int, weights: Weights) -> None:
        self._rounds = rounds
        self._group = group
        self._weights = weights
        self._w = [1.0] * len(rounds.mixing.weights(0))  # of every group
        self._before = self._trained.clone()  # z when the last round ended
        self._own = torch.empty(0)  # between share and mix

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Divide what the step did by w and share what came of it, or mix it."""
        if action.kind is Kind.MIX:
            self._mix(action.index, inbox)
        else:
            self._scale()
            self._own = self._weights.flat[: self._weights.mixed].clone()
        sent = [Message(tag, self._weights.version, (self._own,)) for tag in action.sends]
        if action.kind is Kind.MIX or self._rounds.turn(action.index) is None:
            self._before, self._own = self._trained.clone(), torch.empty(0)
        return sent

    def state_dict(self) -> State:
        """Return z of the end of the last round, and w of all groups."""
        return {"before": self._before, "w": self._w}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._before, self._w = state["before"], state["w"]

    @property
    def nbytes(self) -> int:
        """Bytes kept from one round to the next."""
        return self._before.nbytes

    @property
    def _trained(self) -> torch.Tensor:
        return self._weights.flat[: self._weights.trained]

    def _scale(self) -> None:
        w = self._w[self._group]
        if w != 1.0:
            self._trained.sub_(self._before).div_(w).add_(self._before)

    def _mix(self, update: int, inbox: Sequence[Message]) -> None:
        turn = self._rounds.turn(update)
        assert turn is not None
        shares, before = self._rounds.mixing.weights(turn), self._w
        # Rounded once, so that in no order of the groups, and on no machine, it is another number.
        self._w = [math.fsum(float(a) * w for a, w in zip(row, before, strict=True)) for row in shares]
        delta = torch.zeros_like(self._own)
        for message in inbox:
            source = message.tag.edge.source.group
            share = float(shares[self._group, source]) * before[source] / self._w[self._group]
            delta += gap_to(message.tensors[0], self._own, self._weights.statistics).mul_(share)
        self._weights.flat[: self._weights.mixed] += delta
