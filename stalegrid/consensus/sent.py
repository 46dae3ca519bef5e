"""What of a unit's vector travels in which mixing turn: all of it, or one part of it after the other.

Does not know: when turns are, who mixes with whom, what is made of what came.

Source of parts: AsyncMesh, arXiv 2601.22442.  A cycle of turns sends every element once.  Each tensor of parameters is
dealt out at random into as many parts as a cycle has turns, drawn anew for each cycle and alike in all groups, so a
message needs to name no element.  Parts are as long as the layout of messages says: a tensor whose elements do not
come out even is dealt out with blanks, at random places, so that no element of a small tensor is bound to one turn of
the cycle, and to the neighbours of that turn where they change.

Running statistics travel whole in every turn.  They are few, and a mean and a variance of different moments belong to
no activation that there ever was.
"""

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from stalegrid.objects import State
from stalegrid.seeds import generator
from stalegrid.stages import StageLayout, Weights


class Sent(Protocol):
    """What of a vector travels.

    Attributes:
        statistics: where the running statistics are in what travels.
    """

    statistics: slice

    @property
    def nbytes(self) -> int:
        """Bytes that are kept to know it."""

    def state_dict(self) -> State:
        """Return what it takes to keep as many again."""

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""

    def take(self, vector: Tensor, turn: int) -> Tensor:
        """Return the piece of a vector that travels in a turn."""

    def put(self, vector: Tensor, piece: Tensor, turn: int) -> None:
        """Write a turn's piece into a vector."""

    def spread(self, piece: Tensor, turn: int) -> Tensor:
        """Return a vector that has the elements of a turn's piece, and zeros elsewhere."""


class Whole:
    """All of the vector travels in every turn.

    Args:
        trained: elements at its start that are trained.
        mixed: elements at its start that are mixed; momentum may follow.
    """

    nbytes = 0

    def __init__(self, trained: int, mixed: int) -> None:
        self.statistics = slice(trained, mixed)

    def state_dict(self) -> State:
        """Return nothing."""
        return {}

    def load_state_dict(self, state: State) -> None:
        """Do nothing."""

    def take(self, vector: Tensor, turn: int) -> Tensor:
        """Return the vector itself."""
        return vector

    def put(self, vector: Tensor, piece: Tensor, turn: int) -> None:
        """Write over all of the vector."""
        vector.copy_(piece)

    def spread(self, piece: Tensor, turn: int) -> Tensor:
        """Return the piece itself."""
        return piece


def parts_of(share: float) -> int:
    """Return how many parts there are.

    Args:
        share: p of a vector that travels at most, in (0, 1].
    """
    return math.ceil(1.0 / share - 1e-9)  # 1 / p may be a rounding above a whole number


def length(read: StageLayout | Weights, parts: int) -> int:
    """Return the elements of a message: the parts of all tensors, and the running statistics."""
    return sum(math.ceil(size / parts) for _, size in _tensors(read)) + read.mixed - read.trained


def drawn_bytes(read: StageLayout | Weights, parts: int, late: int) -> int:
    """Return the bytes that are kept at most to know which elements belong to which part.

    Args:
        read: how the vector reads.
        parts: of a cycle.
        late: turns from a share to its mix.
    """
    cycles = 1 + math.ceil(late / parts)
    return cycles * sum(parts * math.ceil(size / parts) for _, size in _tensors(read)) * torch.int32.itemsize


class Parts:
    """One part of the vector travels in each turn.

    Args:
        read: how the vector reads.
        parts: of a cycle.
        first: turn with which the first cycle begins.
        late: turns from a share to its mix.
        draws: cycle -> generator, the same in all groups.
    """

    def __init__(
        self, read: Weights, parts: int, first: int, late: int, draws: Callable[[int], torch.Generator]
    ) -> None:
        self._tensors = _tensors(read)
        self._whole = slice(read.trained, read.mixed)
        self._parts = parts
        self._first = first
        self._late = late
        self._draws = draws
        self._drawn: dict[int, list[Tensor]] = {}  # by cycle, by tensor: places in it, or beyond its end for blanks
        self._size = length(read, parts)
        self.statistics = slice(self._size - (read.mixed - read.trained), self._size)

    @property
    def nbytes(self) -> int:
        """Bytes of what is drawn."""
        return sum(places.nbytes for cycle in self._drawn.values() for places in cycle)

    def state_dict(self) -> State:
        """Return which cycles are drawn."""
        return {"cycles": sorted(self._drawn)}

    def load_state_dict(self, state: State) -> None:
        """Draw them again."""
        self._drawn = {}
        for cycle in state["cycles"]:
            self._cycle(cycle)

    def take(self, vector: Tensor, turn: int) -> Tensor:
        """Return the part, zeros for blanks, and the running statistics."""
        index = self._index(turn, vector.device)
        piece = vector.new_zeros(self._size)
        piece[: len(index)] = vector[index]
        piece[self.statistics] = vector[self._whole]
        return piece

    def put(self, vector: Tensor, piece: Tensor, turn: int) -> None:
        """Write over the part and the running statistics."""
        index = self._index(turn, piece.device)
        vector[index] = piece[: len(index)]
        vector[self._whole] = piece[self.statistics]

    def spread(self, piece: Tensor, turn: int) -> Tensor:
        """Return a vector of zeros but for the part and the running statistics."""
        vector = piece.new_zeros(self._whole.stop)
        self.put(vector, piece, turn)
        return vector

    def _index(self, turn: int, device: torch.device) -> Tensor:
        """Return which elements are in the part of a turn, tensor by tensor, without blanks."""
        cycle, part = divmod(turn - self._first, self._parts)
        places = []
        for (offset, size), drawn in zip(self._tensors, self._cycle(cycle), strict=True):
            own = drawn[part * len(drawn) // self._parts : (part + 1) * len(drawn) // self._parts]
            places.append(own[own < size].long() + offset)
        return torch.cat([torch.empty(0, dtype=torch.int64), *places]).to(device)

    def _cycle(self, cycle: int) -> list[Tensor]:
        if cycle not in self._drawn:
            oldest = cycle - math.ceil(self._late / self._parts)  # that somebody's late mix may still be of
            self._drawn = {n: drawn for n, drawn in self._drawn.items() if n >= oldest}
            draw = self._draws(cycle)
            blanks = (self._parts * math.ceil(size / self._parts) for _, size in self._tensors)
            self._drawn[cycle] = [torch.randperm(n, generator=draw, dtype=torch.int32) for n in blanks]
        return self._drawn[cycle]


def draws_of(seed: int, stage: int) -> Callable[[int], torch.Generator]:
    """Return what draws the parts of a stage, by cycle.

    Args:
        seed: of the run.
        stage: k.
    """
    return lambda cycle: generator(seed, "parts", stage, cycle)


def _tensors(read: StageLayout | Weights) -> list[tuple[int, int]]:
    """Return where each tensor that is trained begins in the vector, and its elements."""
    return [(e.offset, math.prod(e.shape)) for e in read.entries if e.offset < read.trained]
