"""Whole numbers of 8 bits, with a scale for every block of 64.

Does not know: what the numbers are for.

With E the exponent of the largest number of the vector, so that all are below 2^E, and blocks b of 64 in its order::

    scale_b = float16(max_b |x| 2^(22-E) / 127)         q = round(x 2^(22-E) / scale_b), ties to even, within +-127
    x      ~= q scale_b 2^(E-22)

The power of two is there because float16 alone has no room for a scale: gradients below 1e-5 would all become 0, and
what is above 8e6 infinite.  With it the largest scale is between 2^14 and 2^15, and blocks down to 5e-10 of the largest
number have a scale of full precision; below 4e-12 they become 0.

A number that is not finite arrives as nan, by a code of its own, and harms no other: nobody trains on without seeing
it.  One at the very end of the range of its type may arrive as an infinity.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from stalegrid.codecs.codec import Codec, Tensors
from stalegrid.programs import Layout, flat_layout

BLOCK = 64
LARGEST = 127
NAN = -128
"""In the place of a number that is not finite."""

_ROOM = 22
"""E becomes this exponent, with which scales fit float16."""
_LEAST = -1000
"""The smallest E, so that its inverse is a number of float64, however small the numbers are."""


@dataclass(frozen=True)
class Int8(Codec):
    """A little more than one byte a number."""

    name: ClassVar[str] = "int8"

    def encode(self, vector: Tensor) -> Tensors:
        """Return the whole numbers, the scales, and the exponent."""
        blocks = _blocks(vector.to(torch.float64))
        finite = blocks.isfinite()
        sizes = blocks.abs().masked_fill_(~finite, 0.0).amax(1)
        exponent = _exponent(sizes)
        up = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), _ROOM - exponent)
        scales = (sizes * up / LARGEST).to(torch.float32).to(torch.float16)
        # A scale that is 0 has nothing to divide by, and nothing to say.
        steps = scales.to(torch.float64).masked_fill(scales == 0, torch.inf)
        codes = (blocks * up / steps.unsqueeze(1)).round_().clamp_(-LARGEST, LARGEST)
        codes.masked_fill_(~finite, NAN)
        whole = codes.to(torch.int8).flatten()[: vector.numel()]
        return whole.clone(), scales, exponent.to(torch.int16)

    def decode(self, parts: Tensors, numel: int, dtype: torch.dtype) -> Tensor:
        """Return the numbers; each is exact before it is rounded to its type."""
        whole, scales, exponent = parts
        codes = _blocks(whole.to(torch.float64))
        values = codes * scales.to(torch.float64).unsqueeze(1)
        down = torch.ldexp(torch.ones_like(exponent, dtype=torch.float64), exponent.to(torch.int32) - _ROOM)
        values = (values * down).masked_fill_(codes == NAN, torch.nan)
        return values.flatten()[:numel].to(dtype)

    def layout(self, numel: int, dtype: torch.dtype) -> Layout:
        """Return n numbers of one byte, a scale a block, and one exponent."""
        scales = flat_layout(-(-numel // BLOCK), torch.float16)
        return flat_layout(numel, torch.int8) + scales + flat_layout(1, torch.int16)


def _blocks(vector: Tensor) -> Tensor:
    """Return a vector as rows of 64, the last one filled with zeros."""
    rows = -(-vector.numel() // BLOCK)
    return nn.functional.pad(vector, (0, rows * BLOCK - vector.numel())).view(rows, BLOCK)


def _exponent(sizes: Tensor) -> Tensor:
    """Return E, shape (1,), of the largest of some numbers, or of 0 if there are none."""
    largest = torch.cat([sizes.new_zeros(1), sizes]).amax().view(1)
    return torch.frexp(largest).exponent.clamp(min=_LEAST)
