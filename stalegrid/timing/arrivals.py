"""In which order gradients arrive at a parameter server, in virtual time.

Does not know: tensors, real time.

A gradient's date does not depend on what others compute, only on when its learner was answered.  So all that is under
way is dated at once, and the next to be taken is the one that arrives first at the first server; ties go to the lower
number.  What is answered later arrives later.

So the order of a run can be drawn before anything is computed, and then is its program: the simulator needs no notion
of racing.
"""

import heapq
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import tee

from stalegrid.programs import DOOR, OBSERVER, Action, Delivery, Edge, Kind, Served, Unit
from stalegrid.timing.clock import Clock, TimeModel
from stalegrid.timing.costs import NANOSECONDS
from stalegrid.timing.pace import Pace


@dataclass(frozen=True)
class ServedTimes(TimeModel):
    """What the actions of learners and servers take; the one stage is the whole model.

    Args:
        shares: of the parameters, that each server has.
    """

    shares: tuple[float, ...] = (1.0,)

    def pace(self, unit: Unit) -> Pace:
        """Return what a unit's actions take; a server's are its share of an exchange and of an optimizer's step."""
        if unit == OBSERVER or unit.group >= 0:
            return super().pace(unit)
        cost, share = self.stages[0], self.shares[unit.stage]
        usual = {Kind.TAKE: cost.mix * share, Kind.UPDATE: cost.update * share}
        return Pace(unit, {kind: round(ms * NANOSECONDS) for kind, ms in usual.items() if ms}, self.disturbances)


def drawn(program: Served, model: TimeModel) -> list[Delivery]:
    """Return the order of all deliveries of a run in virtual time.

    Args:
        program: of the run.
        model: what its actions take.
    """
    return list(_Arrivals(program, model).run())


class _Arrivals:
    """A run of learners and servers without tensors.

    Args:
        program: what is due.
        model: what it takes.
    """

    def __init__(self, program: Served, model: TimeModel) -> None:
        self._program = program
        self._clock = Clock(program, model)
        self._coming: list[tuple[int, int]] = []  # arrival at the first server, learner

    def run(self) -> Iterator[Delivery]:
        """Yield whose gradient is next, and date what follows from that."""
        # All servers walk one order; each arrival is taken from the heap once.
        first, *rest = tee(self._next(), self._program.servers + 1)
        order = [self._program.serve(s, own) for s, own in zip(self._program.shards, rest, strict=True)]
        # In lock-step: given an order, all servers have the same kinds of actions.
        for actions in zip(*order, strict=True):
            for unit, action in zip(self._program.shards, actions, strict=True):
                assert action is not None
                self._clock.date(unit, action)
            kind = actions[0].kind if actions[0] else None
            if kind is Kind.ANSWER:
                self._compute(actions[0])
            elif kind is Kind.TAKE:
                yield next(first)

    def _next(self) -> Iterator[Delivery]:
        while True:
            yield Delivery(heapq.heappop(self._coming)[1])

    def _compute(self, answer: Action | None) -> None:
        """Let those that are answered compute a gradient, and note when it arrives."""
        assert answer is not None
        for tag in answer.sends:
            unit = tag.edge.target
            for action in self._program.batch(unit, tag.index):
                self._clock.date(unit, action)
            arrival = self._clock.lines[Edge("push", unit, DOOR)].arrivals[-1]
            heapq.heappush(self._coming, (arrival, unit.group))
