"""What travels: tensors with the coordinates and the version they were made at.

Does not know: how messages travel, what they are for.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from stalegrid.programs.actions import Tag

ALIGNMENT = 64
"""Bytes; tensors start on cache lines, because some CPU kernels sum in another order on unaligned memory."""


END = -1
"""Index of the last message of an edge of which nobody knows how many it carries; it has no content."""


@dataclass(frozen=True, slots=True)
class Message:
    """One message.

    Args:
        tag: which one it is.
        version: updates that the sender had applied when it made the tensors.
        tensors: the content; the receiver may keep them but must not change them.
    """

    tag: Tag
    version: int
    tensors: tuple[Tensor, ...]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """Shape, memory order and type of a tensor to come."""

    shape: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> "TensorSpec":
        """Describe a tensor, as dense in memory as its own order of dimensions allows."""
        # A slice is sent without what lies between; a layout such as channels_last is kept. On the meta device it costs
        # no memory.
        dense = torch.empty_like(tensor, device="meta", memory_format=torch.preserve_format)
        return cls(tuple(tensor.shape), dense.stride(), tensor.dtype)

    @property
    def numel(self) -> int:
        """Number of elements."""
        return torch.Size(self.shape).numel()

    @property
    def nbytes(self) -> int:
        """Bytes, without padding."""
        return self.numel * self.dtype.itemsize


Layout = tuple[TensorSpec, ...]
"""What every message of one edge consists of."""


def layout_of(tensors: Sequence[Tensor]) -> Layout:
    """Describe the tensors of a message."""
    return tuple(TensorSpec.of(t) for t in tensors)


def flat_layout(numel: int, dtype: torch.dtype) -> Layout:
    """Describe a message of one vector."""
    return (TensorSpec((numel,), (1,), dtype),)


def aligned(nbytes: int) -> int:
    """Round a number of bytes up to the alignment."""
    return -(-nbytes // ALIGNMENT) * ALIGNMENT
