"""The largest numbers and where they are; the others are 0 where they arrive.

Does not know: what the numbers are for.

Of n numbers those ``max(1, round(fraction n))`` travel that are largest in magnitude, ties to the lowest place, so that
neither the number of threads nor the way in which a library sorts says which.  What is no number counts as infinite, so
that nobody trains on without seeing it.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.codecs.codec import Codec, Tensors
from stalegrid.programs import Layout, flat_layout


@dataclass(frozen=True)
class TopK(Codec):
    """A share of the numbers.

    Args:
        fraction: of the numbers that travel, above 0 and at most 1.
    """

    fraction: float

    name: ClassVar[str] = "topk"
    sparse: ClassVar[bool] = True

    def __str__(self) -> str:
        return f"{self.name}={self.fraction!r}"

    def encode(self, vector: Tensor) -> Tensors:
        """Return the numbers that travel, as they are, and their places, ascending."""
        places = self._places(vector.abs().nan_to_num(torch.inf, torch.inf), self._count(vector.numel()))
        return vector[places], places.to(_places_in(vector.numel()))

    def decode(self, parts: Tensors, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the numbers that travelled, among zeros."""
        values, places = parts
        vector = torch.zeros(numel, dtype=dtype, device=values.device)
        vector[places.to(torch.int64)] = values
        return vector

    def layout(self, numel: int, dtype: torch.dtype) -> Layout:
        """Return as many numbers, and as many places."""
        count = self._count(numel)
        return flat_layout(count, dtype) + flat_layout(count, _places_in(numel))

    def _count(self, numel: int) -> int:
        return min(numel, max(1, round(self.fraction * numel)))

    @staticmethod
    def _places(sizes: Tensor, count: int) -> Tensor:
        if count == len(sizes):
            return torch.arange(count, device=sizes.device)
        # The k-th largest value is one number, whoever finds it; which of its equals come along is said here.
        least = torch.topk(sizes, count).values.amin()
        above = (sizes > least).nonzero().flatten()
        equal = (sizes == least).nonzero().flatten()
        return torch.cat([above, equal[: count - len(above)]]).sort().values


def _places_in(numel: int) -> torch.dtype:
    return torch.int32 if numel <= torch.iinfo(torch.int32).max else torch.int64
