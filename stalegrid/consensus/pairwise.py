"""Asynchronous averaging in pairs: one neighbour at a time, whenever it answers.

Does not know: who meets whom when (:mod:`stalegrid.programs.meetings` does), other stages, how messages travel.

Source: Lian et al., AD-PSGD, arXiv 1710.06952.  A worker averages with one drawn neighbour while it computes its next
gradient, and nobody waits::

    w_i, w_j <- (w_i + w_j) / 2

The source asks for both to change at one moment.  Here j changes when it takes the question, which carries the ``a``
that i had when it asked, and i when it takes the answer, which carries the ``b`` that j had just before::

    w_j <- w_j + (a - b) / 2,        b = w_j;        w_i <- w_i + (b - a) / 2

What both have made of their own gradients in between stays, and the sum over the groups is what it was, to rounding.
The source parts groups into those that ask and those that answer, lest they wait for each other in a circle; here
nobody waits before the end, so all ask, and any graph will do.

Running statistics are averaged like parameters, but stay where either is infinite.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from stalegrid.consensus.gaps import gap_to
from stalegrid.consensus.mixing import Mixing, Turns, Vectors
from stalegrid.consensus.momentum import Momentum
from stalegrid.errors import ConfigError
from stalegrid.objects import State
from stalegrid.programs import (
    ANSWER,
    Action,
    Askers,
    Edge,
    InStep,
    Kind,
    Layout,
    Message,
    Question,
    Recorded,
    Unit,
    flat_layout,
)
from stalegrid.seeds import derive
from stalegrid.stages import Weights


@dataclass(frozen=True)
class Drawn(Askers):
    """Who asks whom: all neighbours once, in an order that is drawn anew each time.

    Args:
        seed: of the run.
    """

    seed: int = 0

    def asked(self, unit: Unit, number: int) -> Question:
        """Return the question of a unit that has a number."""
        others = list(self.neighbours[unit.group])
        turn, place = divmod(number, len(others))
        random.Random(derive(self.seed, "pair", unit.group, unit.stage, turn)).shuffle(others)
        return Question(unit.group, others[place], number)


class Pairwise(Mixing):
    """Units average with one neighbour after the other, whenever it answers."""

    name: ClassVar[str] = "pairwise"
    averages_parameters: ClassVar[bool] = True
    timed: ClassVar[bool] = True
    refuses: ClassVar[Mapping[str, str]] = {
        "lag": "takes answers as they come; leave the lag out",
        "fragments": "meets others whenever they answer; leave fragments out",
        "random pairs": "draws whom it asks among neighbours; take another topology, such as complete",
        "lost groups": "does not go on without a group, as nobody knows what is under way; take adapt-then-combine",
    }

    def askers(self, turns: Turns) -> Drawn:
        """Return who may ask whom, and when.

        Raises:
            ConfigError: the turns make no sense.
        """
        if turns.lag:
            self.refuse("lag", f"mixing.lag: {turns.lag}")
        if turns.fragments > 1:
            self.refuse("fragments", "mixing.fragments: true")
        if turns.period < 1:
            raise ConfigError(f"the mixing period counts updates from 1 (period: {turns.period})")
        if len(set(turns.matrix.sizes)) > 1:
            raise ConfigError(
                f"the mean of a pair is no mean that is weighed by unlike sizes (mixing: {self.name}, batch_size: "
                f"{','.join(map(str, turns.matrix.sizes))}); take batches of one size, or another mixing"
            )
        takes = [turns.matrix.neighbours(s) for s in range(turns.groups)]
        both = (tuple(r for r in turns.members if r in takes[s] or s in takes[r]) for s in range(turns.groups))
        return Drawn(tuple(both), turns.period, turns.updates, turns.begins, turns.seed)

    def cycle(self, turns: Turns) -> int:
        """Return after how many updates a unit that is as fast as all asks again."""
        return InStep(self.askers(turns)).every

    def lateral(self, turns: Turns) -> InStep | Recorded:
        """Return the meetings that were recorded, or those of groups that are all equally fast.

        Raises:
            ConfigError: the turns make no sense, nobody would meet, or the record is not that of a whole run.
        """
        askers = self.askers(turns)
        if turns.updates - turns.begins < turns.period + 2:
            raise ConfigError(
                f"the groups would never mix (period: {turns.period}, updates: {turns.updates}): an answer takes two "
                "updates; train longer, or take mixing none"
            )
        return InStep(askers) if turns.meetings is None else Recorded(askers, turns.meetings)

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> "PairAveraging":
        """Return the averaging of a unit's parameters."""
        return PairAveraging(weights, momentum)

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return the vector that is averaged, and the momentum behind it."""
        return flat_layout(vectors.read.mixed + vectors.momentum * vectors.trainable, vectors.read.dtype)


class PairAveraging:
    """The exchange of one unit with one other at a time.

    Args:
        weights: of this unit; what is trained and running statistics are averaged alike.
        momentum: the unit's momentum buffers, to average them too; None to keep them local.
    """

    def __init__(self, weights: Weights, momentum: Momentum | None) -> None:
        self._weights = weights
        self._momentum = momentum
        self._asked = torch.empty(0)  # this unit's vector when it asked last

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Ask, or take an answer and answer questions, in the order of the program."""
        version = self._weights.version
        if action.kind is Kind.STOP:
            return [Message(tag, version, ()) for tag in action.sends]
        if action.kind is Kind.SHARE:
            self._asked = self._read()
            return [Message(tag, version, (self._asked,)) for tag in action.sends]
        answers = iter(action.sends)
        made = []
        for message in inbox:
            (theirs,) = message.tensors
            if message.tag.edge.name == ANSWER:
                self._approach(theirs, self._asked)
                continue
            own = self._read()
            made.append(Message(next(answers), version, (own,)))
            self._approach(theirs, own)
        return made

    def state_dict(self) -> State:
        """Return what an answer under way will be held against."""
        return {"asked": self._asked}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._asked = state["asked"]

    def _approach(self, theirs: torch.Tensor, own: torch.Tensor) -> None:
        """Add half of the gap between two vectors."""
        half, mixed = gap_to(theirs, own, self._weights.statistics).mul_(0.5), self._weights.mixed
        self._weights.flat[:mixed] += half[:mixed]
        if self._momentum is not None:
            self._momentum.add(half[mixed:])

    def _read(self) -> torch.Tensor:
        mixed = self._weights.flat[: self._weights.mixed]
        return mixed.clone() if self._momentum is None else torch.cat([mixed, self._momentum.read()])
