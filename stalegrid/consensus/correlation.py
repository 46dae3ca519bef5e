"""rho_1, the correlation of consecutive pseudo-gradients: whether an outer optimizer goes on or goes to and fro.

Does not know: how pseudo-gradients come about, who is told.
"""

import torch
from torch import Tensor

from stalegrid.objects import State

RHO = "rho_1"
"""What records call it."""


class Correlation:
    """The mean cosine of the angle between a vector and the one before, since it was asked for last."""

    def __init__(self) -> None:
        self._last: Tensor | None = None
        self._found: list[Tensor] = []  # read when they are told, so that a GPU need not be waited for

    def add(self, vector: Tensor) -> None:
        """Take the next vector, which is kept and may not be changed."""
        if self._last is not None:
            # In double precision: sums of millions of small products.
            one, other = self._last.double(), vector.double()
            self._found.append(torch.dot(one, other) / (one.norm() * other.norm()))
        self._last = vector

    def told(self) -> float:
        """Return the mean, and begin anew; NaN for none, where a vector without a direction has none."""
        found, self._found = [value for one in self._found if (value := float(one)) == value], []
        return sum(found) / len(found) if found else float("nan")

    def state_dict(self) -> State:
        """Return the last vector, and what is to be told."""
        return {"last": self._last, "found": self._found}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._last, self._found = state["last"], state["found"]
