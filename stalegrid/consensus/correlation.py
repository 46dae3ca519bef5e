"""rho_1, the correlation of consecutive pseudo-gradients: whether an outer optimizer goes on or goes to and fro.

Does not know: how pseudo-gradients come about, who is told.
"""

import torch
from torch import Tensor

from stalegrid.objects import State

RHO = "rho_1"
"""What records call it."""

CHUNK = 2**20
"""Elements that are in double precision at once."""


class Correlation:
    """The mean cosine of the angle between a vector and the one before, since it was asked for last."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._square: Tensor | None = None  # of its norm
        self._found: list[Tensor] = []  # read when they are told, so that a GPU need not be waited for

    def add(self, vector: Tensor) -> None:
        """Take the next vector, which is kept and may not be changed."""
        square = _dot(vector, vector)
        if self._last is not None and self._square is not None:
            self._found.append(_dot(self._last, vector) / (self._square.sqrt() * square.sqrt()))
        self._last, self._square = vector, square

    def told(self) -> float:
        """Return the mean, and begin anew; NaN for none, where a vector without a direction has none."""
        found, self._found = [value for one in self._found if (value := float(one)) == value], []
        return sum(found) / len(found) if found else float("nan")

    def state_dict(self) -> State:
        """Return the last vector, and what is to be told."""
        return {"last": self._last, "square": self._square, "found": self._found}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._last, self._square, self._found = state["last"], state["square"], state["found"]


def _dot(one: Tensor, other: Tensor) -> Tensor:
    """Return a product in double precision, since it is a sum of millions of small ones, shape ()."""
    parts = zip(torch.split(one, CHUNK), torch.split(other, CHUNK), strict=True)
    return torch.stack([torch.dot(a.double(), b.double()) for a, b in parts]).sum()
