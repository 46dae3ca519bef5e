"""Numbers rounded to bfloat16: 8 bits of precision, and the range of float32.

Does not know: what the numbers are for.

Infinities and nan stay what they are, and what is beyond the range of bfloat16, which only a float64 is far, becomes an
infinity.  A vector in bfloat16 loses nothing.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from stalegrid.codecs.codec import Codec, Tensors
from stalegrid.programs import Layout, flat_layout


@dataclass(frozen=True)
class Bf16(Codec):
    """Two bytes a number."""

    name: ClassVar[str] = "bf16"

    def encode(self, vector: Tensor) -> Tensors:
        """Return the numbers, each rounded to the nearest, ties to even."""
        return (vector.to(torch.bfloat16),)

    def decode(self, parts: Tensors, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the numbers in their own type."""
        return parts[0].to(dtype)

    def layout(self, numel: int, dtype: torch.dtype) -> Layout:
        """Return n numbers of two bytes."""
        return flat_layout(numel, torch.bfloat16)
