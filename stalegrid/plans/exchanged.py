"""What groups send each other of a stage of which nothing is known but how large its parameters are.

Does not know: models, programs, what else units send each other.
"""

from dataclasses import dataclass

import torch

from stalegrid.consensus import Mixing, Turns, Vectors
from stalegrid.programs import Edge
from stalegrid.stages import Entry, StageLayout

VECTOR = 4_000_000
"""Bytes of a vector, so long that what else travels or is kept with it is nothing to it."""


@dataclass(frozen=True, slots=True)
class Exchanged:
    """What groups exchange, and when.

    Args:
        mixing: of the run.
        turns: likewise.
        momentum: whether it is mixed too.
    """

    mixing: Mixing
    turns: Turns
    momentum: bool = False

    @property
    def period(self) -> int:
        """Updates from one mixing of parameters to the next."""
        return self.turns.period if self.mixing.averages_parameters else 1

    def nbytes(self, edge: Edge, parameters: int) -> int:
        """Return the bytes of every message of an edge between groups.

        Args:
            edge: between two units of a stage.
            parameters: of the stage, bytes.
        """
        return sum(spec.nbytes for spec in self.mixing.layout(edge, self.turns, self._vectors(parameters)))

    def remembered(self, parameters: int) -> int:
        """Return the bytes that a unit keeps from one turn to the next, at most.

        Args:
            parameters: of the stage, bytes.
        """
        return self.mixing.remembered(self.turns, self._vectors(parameters))

    @property
    def vectors_kept(self) -> float:
        """How many vectors, as long as the parameters, a unit keeps from one turn to the next, at most."""
        return self.remembered(VECTOR) / VECTOR

    def _vectors(self, parameters: int) -> Vectors:
        """Return those of a stage whose parameters are one tensor of float32, without running statistics."""
        numel = parameters // torch.float32.itemsize
        read = StageLayout((Entry("", 0, (numel,), (1,)),), numel, numel, numel, torch.float32, ())
        return Vectors(read, numel, self.momentum)
