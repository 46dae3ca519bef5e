"""A message as bytes: a header of one cache line, then each tensor in its own memory order.

Does not know: who sends, who receives, how bytes travel.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from stalegrid.errors import ProtocolError
from stalegrid.programs import ALIGNMENT, END, Layout, Message, Tag, TensorSpec, aligned


@dataclass(frozen=True)
class Wire:
    """How messages of one layout are laid out in a buffer.

    Args:
        layout: of every message.
    """

    layout: Layout

    @property
    def nbytes(self) -> int:
        """Size of a buffer."""
        return ALIGNMENT + sum(aligned(spec.nbytes) for spec in self.layout)

    def pack(self, message: Message, buffer: Tensor) -> None:
        """Write a message into a buffer, one copy a tensor.

        Args:
            message: on any device.
            buffer: uint8, shape (nbytes,).

        Raises:
            ProtocolError: the tensors are not of the layout.
        """
        # A whole cache line for two numbers: so the tensors behind it are aligned as they are anywhere else.
        header = torch.zeros(ALIGNMENT // 8, dtype=torch.int64)
        header[0], header[1] = message.tag.index, message.version
        buffer[:ALIGNMENT].view(torch.int64).copy_(header)
        if message.version == END:
            return
        # Shapes are not on the wire: both ends know them, so a receive is posted before its message is made.
        found = tuple((tuple(t.shape), t.dtype) for t in message.tensors)
        due = tuple((spec.shape, spec.dtype) for spec in self.layout)
        if found != due:
            raise ProtocolError(
                f"{message.tag} has another content than its edge carries (found: {found}, due: {due}); every batch "
                "must have the same shapes"
            )
        for view, tensor in zip(self._views(buffer), message.tensors, strict=True):
            view.copy_(tensor, non_blocking=True)

    def unpack(self, buffer: Tensor, tag: Tag, device: torch.device) -> Message:
        """Read a message from a buffer that nobody will write again.

        Args:
            buffer: uint8, shape (nbytes,).
            tag: which message is due.
            device: that the tensors are wanted on.

        Raises:
            ProtocolError: another message is in the buffer.
        """
        index, version = buffer[:16].view(torch.int64).tolist()
        if version == END:
            return Message(Tag(tag.edge, END), END, ())
        if index != tag.index:
            raise ProtocolError(f"{tag.edge} brought message {index} where {tag.index} was due")
        return Message(tag, version, tuple(v.to(device, non_blocking=True) for v in self._views(buffer)))

    def _views(self, buffer: Tensor) -> list[Tensor]:
        views = []
        offset = ALIGNMENT
        for spec in self.layout:
            views.append(_view(buffer[offset : offset + spec.nbytes], spec))
            offset += aligned(spec.nbytes)
        return views


def _view(part: Tensor, spec: TensorSpec) -> Tensor:
    typed = part.view(spec.dtype)
    return typed.as_strided(spec.shape, spec.stride, typed.storage_offset())
