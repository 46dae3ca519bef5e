"""Averaging the gradients of one stage over all groups: data parallelism.

Does not know: when (:mod:`stalegrid.consensus.rounds` does), other stages, how messages travel.

What is averaged is one vector: the gradients, then for each parameter whether it has one, 1 or 0.  What has no gradient
is not updated, not even by weight decay.  So a parameter that no group has used keeps none, as in torch's own loop, and
one that somebody has used gets the mean in every group, be it 0.  A gradient of zeros would be the cheaper sign and is
none: dead units have gradients of exactly 0, which decay and momentum must see.

Each group's gradient is a mean over its batch.  Where batches have unlike sizes the mean is weighed by them, so that it
is that over the samples of all batches::

    g = (sum_s B_s/B g_s) / (sum_s B_s/B),      B the largest of the B_s, and sums in the order of the groups

Gradients that are sums stay sums, over all groups, and what they count is added up too: they are divided once, by
whoever updates.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stalegrid.consensus.weighing import weighed
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights


class GradientAveraging:
    """The exchange of one unit: mean (or sum) of the gradients, each group averaging its part.

    Args:
        shares: what each group that is there weighs, in the order of the groups.
        group: s of this unit.
        weights: of this unit, whose gradients are replaced by the mean.
    """

    def __init__(self, shares: Mapping[int, float], group: int, weights: Weights) -> None:
        self._shares = shares
        self._groups = list(shares)
        self._group = group
        self._weights = weights
        self._parts: dict[int, Tensor] = {}  # of the current round, by the group that owns them

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Send parts to their owners, average the own part, or take the mean."""
        others = {m.tag.edge.source.group: m.tensors[0] for m in inbox}
        if action.kind is Kind.SHARE:
            # Of equal size whatever the parameters are: one of them may lie in two parts.
            parts = torch.tensor_split(self._gradient(), len(self._groups))
            self._parts = dict(zip(self._groups, parts, strict=True))
        elif action.kind is Kind.REDUCE:
            self._count({m.tag.edge.source.group: m.tensors[1:] for m in inbox})
            self._parts[self._group] = self._mean(others)
        else:
            self._take(others)
        version, counts = self._weights.version, self._counts() if action.kind is Kind.SHARE else ()
        chosen = {tag: tag.edge.target.group if action.kind is Kind.SHARE else self._group for tag in action.sends}
        return [Message(tag, version, (self._parts[owner], *counts)) for tag, owner in chosen.items()]

    def arrives(self, message: Message) -> None:
        """Take one's own mean as the others do."""
        self._parts[self._group] = message.tensors[0]

    def state_dict(self) -> State:
        """Return that nothing is kept from one round to the next."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def _gradient(self) -> Tensor:
        parameters = self._weights.trainable()
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        there = self._weights.flat.new_tensor([p.grad is not None for p in parameters])
        return torch.cat([*(g.flatten() for g in grads), there])

    def _counts(self) -> tuple[Tensor, ...]:
        return () if self._weights.divisor is None else (self._weights.divisor,)

    def _count(self, others: dict[int, tuple[Tensor, ...]]) -> None:
        """Let the gradients count what those of all groups do."""
        own, self._weights.divisor = self._counts(), None
        for s in self._groups:
            for number in own if s == self._group else others[s]:
                self._weights.count(number)

    def _mean(self, others: dict[int, Tensor]) -> Tensor:
        by_group = {**others, self._group: self._parts[self._group]}
        total, sums = torch.zeros_like(by_group[self._group]), self._weights.divisor is not None
        # In the order of the groups, whoever's part came first: a sum in another order has other bits.
        for s, share in self._shares.items():
            total += weighed(by_group[s], 1.0 if sums else share)
        return total if sums else total.div_(sum(self._shares.values()))

    def _take(self, others: dict[int, Tensor]) -> None:
        means = {**others, self._group: self._parts[self._group]}
        vector = torch.cat([means[s] for s in self._groups])
        parameters = self._weights.trainable()
        *parts, there = torch.split(vector, [*(p.numel() for p in parameters), len(parameters)])
        for p, part, share in zip(parameters, parts, there.tolist(), strict=True):
            p.grad = part.view(p.shape) if share > 0 else None
