"""How units of a stage come to the mean of what all had at one version: whole vectors to all, or in parts.

Does not know: what is made of the mean, when groups mix, how messages travel.

In parts, group r makes the r-th part of the mean: everybody sends it that part (S), it takes the mean of it (R) and
sends that to everybody, who puts the parts together (M).  Each element is summed by one group in the order of the
groups, as each group sums it where whole vectors travel: the bits are the same.  Running statistics are few, and what a
unit takes of them depends on its own (:mod:`stalegrid.consensus.statistics`): they go to everybody, behind a part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from stalegrid.consensus.matrices import MixingMatrix
from stalegrid.consensus.middle import is_plain, middle
from stalegrid.consensus.mixing import Turns
from stalegrid.consensus.snapshots import Snapshots, check_versions
from stalegrid.consensus.statistics import pulled
from stalegrid.objects import State
from stalegrid.programs import Action, Kind, Message
from stalegrid.stages import Weights


@dataclass(frozen=True)
class Agreed:
    """What all had in the mean.

    Args:
        mean: of what is trained.
        own: one's group.
        statistics: of every group, by group.
        shares: what is taken of them, as the mixing matrix has it.
    """

    mean: Tensor
    own: int
    statistics: Mapping[int, Tensor]
    shares: Mapping[int, float]

    def pulled(self, now: Tensor) -> Tensor:
        """Return what running statistics move by, from what they are now."""
        return pulled(now, self.statistics, self.shares, self.own)


class Agreeing(Protocol):
    """How the mean comes about."""

    def send(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute a share or a reduce."""

    def agree(self, action: Action, inbox: Sequence[Message]) -> Agreed:
        """Execute a mix."""

    def state_dict(self) -> State:
        """Return what is under way."""

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""


class InWhole:
    """Everybody sends everybody all, and makes the mean.

    Args:
        snapshots: of the unit.
        sizes: samples of every group's batch.
        weights: of the unit.
    """

    def __init__(self, snapshots: Snapshots, sizes: Sequence[int], weights: Weights) -> None:
        self._snapshots = snapshots
        self._sizes = sizes
        self._weights = weights

    def send(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Share what the unit has."""
        weights = self._weights
        return self._snapshots.share(action, weights.version, weights.flat[: weights.mixed].clone())

    def agree(self, action: Action, inbox: Sequence[Message]) -> Agreed:
        """Take the mean of what came."""
        met, trained = self._snapshots.meet(action, inbox), self._weights.trained
        mean = middle({s: vector[:trained] for s, vector in met.vectors.items()}, met.shares, self._sizes)
        return Agreed(mean, met.own, {s: vector[trained:] for s, vector in met.vectors.items()}, met.shares)

    def state_dict(self) -> State:
        """Return what is under way."""
        return self._snapshots.state_dict()

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._snapshots.load_state_dict(state)


class InParts:
    """Everybody makes a part of the mean; nothing is under way from one round to the next.

    Args:
        shares: what every group takes of each, by group, its own among them.
        sizes: samples of every group's batch.
        group: of the unit.
        weights: of the unit.
    """

    def __init__(self, shares: Mapping[int, float], sizes: Sequence[int], group: int, weights: Weights) -> None:
        self._shares = shares
        self._sizes = sizes
        self._group = group
        self._weights = weights
        self._part = torch.empty(0)  # one's own, and the mean of it later
        self._statistics: dict[int, Tensor] = {}

    def send(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Send parts to their owners, or the mean of one's own part to all."""
        version = self._weights.version
        if action.kind is Kind.SHARE:
            parts, statistics = self._parts()
            self._part, self._statistics = parts[self._group], {self._group: statistics}
            return [Message(t, version, (torch.cat([parts[t.edge.target.group], statistics]),)) for t in action.sends]
        check_versions(inbox, version)
        parts = {self._group: self._part}
        for message in inbox:
            source, length = message.tag.edge.source.group, len(self._part)
            parts[source], self._statistics[source] = message.tensors[0][:length], message.tensors[0][length:]
        self._part = middle(parts, self._shares, self._sizes)
        return [Message(tag, version, (self._part,)) for tag in action.sends]

    def agree(self, action: Action, inbox: Sequence[Message]) -> Agreed:
        """Put the parts together."""
        check_versions(inbox, self._weights.version)
        means = {self._group: self._part, **{m.tag.edge.source.group: m.tensors[0] for m in inbox}}
        agreed = Agreed(torch.cat([means[s] for s in sorted(means)]), self._group, self._statistics, self._shares)
        self._part, self._statistics = torch.empty(0), {}
        return agreed

    def state_dict(self) -> State:
        """Return that nothing is kept."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def _parts(self) -> tuple[dict[int, Tensor], Tensor]:
        weights = self._weights
        vector = weights.flat[: weights.mixed].clone()
        parts = torch.tensor_split(vector[: weights.trained], len(self._shares))
        return dict(zip(sorted(self._shares), parts, strict=True)), vector[weights.trained :]


def in_parts(turns: Turns) -> bool:
    """Return whether units come to their mean in parts: where all take the same one, at once, and that sends less."""
    matrix, groups = turns.matrix, turns.groups
    if not isinstance(matrix, MixingMatrix) or turns.lag or groups < 3 or len(matrix.matrices) > 1:
        return False
    rows = (dict(enumerate(map(float, row))) for row in matrix.weights(0))
    return all(is_plain(row, matrix.sizes) for row in rows)


def part_of(owner: int, elements: int, groups: int) -> range:
    """Return which of so many elements a group makes the mean of, as :func:`torch.tensor_split` parts them."""
    size, rest = divmod(elements, groups)
    start = owner * size + min(owner, rest)
    return range(start, start + size + (owner < rest))
