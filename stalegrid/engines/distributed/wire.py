"""A message as bytes: a header of one cache line, then each tensor in its own memory order.

Does not know: who sends, who receives, how bytes travel.
"""

import torch
from torch import Tensor

from stalegrid.errors import ProtocolError
from stalegrid.programs import ALIGNMENT, END, Layout, Message, Tag, TensorSpec, aligned, layout_of


class Wire:
    """How messages are laid out in a buffer.

    Args:
        layouts: of a message; several where batches have several shapes.
    """

    def __init__(self, *layouts: Layout) -> None:
        self.layouts = layouts

    @property
    def nbytes(self) -> int:
        """Size of a buffer, in which any message fits."""
        return ALIGNMENT + max(sum(aligned(spec.nbytes) for spec in layout) for layout in self.layouts)

    def pack(self, message: Message, buffer: Tensor) -> None:
        """Write a message into a buffer, one copy a tensor.

        Args:
            message: on any device.
            buffer: uint8, shape (nbytes,).

        Raises:
            ProtocolError: the tensors are of no layout.
        """
        number = 0 if message.tag.index == END else self._number(message)
        # A whole cache line for three numbers: so the tensors behind it are aligned as they are anywhere else.
        header = torch.zeros(ALIGNMENT // 8, dtype=torch.int64)
        header[0], header[1], header[2] = message.tag.index, message.version, number
        buffer[:ALIGNMENT].view(torch.int64).copy_(header)
        if message.tag.index == END:
            return
        for view, tensor in zip(_views(buffer, self.layouts[number]), message.tensors, strict=True):
            view.copy_(tensor, non_blocking=True)

    def _number(self, message: Message) -> int:
        """Return which of the layouts a message has."""
        # Shapes are not on the wire: both ends know them, so a receive is posted before its message is made.
        found = tuple((tuple(t.shape), t.dtype) for t in message.tensors)
        due = [tuple((spec.shape, spec.dtype) for spec in layout) for layout in self.layouts]
        if found not in due:
            raise ProtocolError(
                f"{message.tag} has another content than its edge carries (found: {found}, due: "
                f"{' or '.join(map(str, due))}); let all batches have shapes of the first epoch, and allow as many "
                "(training.shapes)"
            )
        if due.count(found) > 1:  # two that differ in memory order
            found_order = layout_of(message.tensors)
            return self.layouts.index(found_order) if found_order in self.layouts else due.index(found)
        return due.index(found)

    def unpack(self, buffer: Tensor, tag: Tag, device: torch.device) -> Message:
        """Read a message from a buffer that nobody will write again.

        Args:
            buffer: uint8, shape (nbytes,).
            tag: which message is due.
            device: that the tensors are wanted on.

        Raises:
            ProtocolError: another message is in the buffer.
        """
        index, version, number = buffer[:24].view(torch.int64).tolist()
        if index == END:
            return Message(Tag(tag.edge, END), version, ())
        if index != tag.index:
            raise ProtocolError(f"{tag.edge} brought message {index} where {tag.index} was due")
        if not 0 <= number < len(self.layouts):
            raise ProtocolError(f"{tag.edge} brought a message of no layout (number: {number}, of {len(self.layouts)})")
        views = _views(buffer, self.layouts[number])
        return Message(tag, version, tuple(v.to(device, non_blocking=True) for v in views))


def _views(buffer: Tensor, layout: Layout) -> list[Tensor]:
    views = []
    offset = ALIGNMENT
    for spec in layout:
        views.append(_view(buffer[offset : offset + spec.nbytes], spec))
        offset += aligned(spec.nbytes)
    return views


def _view(part: Tensor, spec: TensorSpec) -> Tensor:
    typed = part.view(spec.dtype)
    return typed.as_strided(spec.shape, spec.stride, typed.storage_offset())
