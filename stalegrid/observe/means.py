"""What a stage tells of its mean over groups, and of what it measured, as vectors that travel like any other message.

Does not know: files, clocks, how means are taken.
"""

from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from stalegrid.programs import Layout, flat_layout

SUMS = 4
"""Numbers that a measurement adds up: samples, their losses, how many are correct, and what losses count."""


@dataclass(frozen=True, slots=True)
class MeanReport:
    """What a stage tells of its mean over groups.

    Attributes:
        squares: of how far each replica is from it.
        unlike: for each buffer of whole numbers, whether replicas have unlike ones.
        infinite: number of the first tensor that is trained and not finite; None for none.
    """

    squares: list[float]
    unlike: list[bool]
    infinite: int | None

    def vector(self) -> Tensor:
        """Return the numbers as float64, shape (numbers,)."""
        infinite = -1 if self.infinite is None else self.infinite
        return torch.tensor([*self.squares, *self.unlike, infinite], dtype=torch.float64)

    @classmethod
    def read(cls, vector: Tensor, replicas: int) -> Self:
        """Undo :meth:`vector`.

        Args:
            vector: float64, shape (numbers,).
            replicas: of the stage.
        """
        values: list[float] = vector.tolist()
        *unlike, infinite = values[replicas:]
        return cls(values[:replicas], list(map(bool, unlike)), None if infinite < 0 else int(infinite))

    @staticmethod
    def layout(replicas: int, counters: int) -> Layout:
        """Return what the message consists of.

        Args:
            replicas: of the stage.
            counters: buffers of whole numbers that it has.
        """
        return flat_layout(replicas + counters + 1, torch.float64)


def measurement(metrics: int) -> Layout:
    """Return what a message of a measurement consists of: sums, and so many metrics, NaN where one has no number."""
    return flat_layout(SUMS + metrics, torch.float64)
