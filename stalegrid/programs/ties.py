"""Which stages use one and the same parameter, and which messages that takes.

Does not know: tensors, optimizers, other groups, time.

The lowest stage that uses a parameter owns it, and trains it as any other.  Each other stage that uses it has a
mirror, which is an input of the batch like an activation: stage k forwards batch b at the very weights with which the
owner j has forwarded it, and the graph of the batch keeps them.  So all uses of the parameter in a batch are at one
version, and the staleness of its update is that of stage j, ``m_j``, whatever the schedule, the micro-batches and the
view are::

    F_j(b) sends    tie-weights #b  to every mirror       if F_j(b) has other weights than F_j(b-1)
    F_k(b) needs    tie-weights #b  of the owner          likewise
    B_k(b) sends    tie-gradient #b to the next lower user
    B_i(b) needs    tie-gradient #b of the next higher user, and begins with it

The gradient goes from use to use, the last use first, as autograd adds in a whole model: so the sums have the same
bits.

No schedule deadlocks or waits for it.  In every schedule F_k(b) comes after F_j(b), by the activations of the stages
between them, and B_i(b) after B_k(b), by their gradients.  An edge between two actions of which the second waits for
the first anyway closes no circle, and adds no wait but for the flight of its own message.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit

WEIGHTS = "tie-weights"
GRADIENT = "tie-gradient"


@dataclass(frozen=True, slots=True)
class Tie:
    """A trained parameter that several stages use.

    Args:
        stages: that use it, ascending.
        names: what each of them calls it.
    """

    stages: tuple[int, ...]
    names: tuple[str, ...]

    @property
    def owner(self) -> int:
        """The stage that trains it."""
        return self.stages[0]

    @property
    def mirrors(self) -> tuple[int, ...]:
        """The other stages that use it."""
        return self.stages[1:]

    def name(self, stage: int) -> str:
        """Return what a stage that uses it calls it."""
        return self.names[self.stages.index(stage)]

    def __str__(self) -> str:
        return f"{self.names[0]} of stage {self.owner} mirrored in {', '.join(map(str, self.mirrors))}"


@dataclass(frozen=True, slots=True)
class Ties:
    """All tied parameters of a model.

    Args:
        each: of them.
        always: whether weights travel with every batch, as where a view forwards each at weights of its own.
    """

    each: tuple[Tie, ...] = ()
    always: bool = False

    def owned(self, stage: int) -> dict[Tie, str]:
        """Return what a stage lends to others, by the stage's own names."""
        return {tie: tie.name(stage) for tie in self.each if tie.owner == stage}

    def mirrored(self, stage: int) -> dict[Tie, str]:
        """Return what a stage has mirrors of, by the stage's own names."""
        return {tie: tie.name(stage) for tie in self.each if stage in tie.mirrors}

    def along(self, edge: Edge) -> tuple[Tie, ...]:
        """Return the parameters whose weights or gradients an edge carries, in the order of its messages."""
        source, target = edge.source.stage, edge.target.stage
        if edge.name == WEIGHTS:
            return tuple(tie for tie in self.each if tie.owner == source and target in tie.mirrors)
        return tuple(tie for tie in self.each if (target, source) in pairwise(tie.stages))

    def into(self, name: str, unit: Unit) -> list[Edge]:
        """Return the edges of a name on which a unit receives."""
        return [edge for other in self._users() if self.along(edge := Edge(name, Unit(unit.group, other), unit))]

    def out_of(self, name: str, unit: Unit) -> list[Edge]:
        """Return the edges of a name on which a unit sends."""
        return [edge for other in self._users() if self.along(edge := Edge(name, unit, Unit(unit.group, other)))]

    def _users(self) -> Iterator[int]:
        return iter(sorted({stage for tie in self.each for stage in tie.stages}))
