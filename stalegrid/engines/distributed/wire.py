"""A message as bytes: a head of one cache line, then each tensor in its own memory order, parted into frames.

Does not know: who sends, who receives, how bytes travel.

The head says which message it is, so that whoever takes bytes as they come need not know what is due.  A message of n
bytes takes ceil((64 + n) / frame) frames and is copied once on either side, frame by frame: neither needs a buffer of
its size but the one that its tensors are then views of.
"""

from collections.abc import Callable, Iterable, Iterator
from struct import Struct
from typing import NamedTuple

import torch
from torch import Tensor

from stalegrid.errors import ProtocolError
from stalegrid.programs import ALIGNMENT, END, Layout, Message, Tag, TensorSpec, aligned, layout_of

HEAD = ALIGNMENT
"""Bytes; a whole cache line for four numbers, so that the tensors behind it are aligned as they are anywhere else."""


FRAME = 1 << 19
"""Bytes of a frame at most."""


class Head(NamedTuple):
    """What comes before the content of a message.

    Args:
        edge: number of the edge among those of the program.
        number: index of the message.
        version: see :class:`stalegrid.programs.messages.Message`.
        layout: number of the layout that the content has.
    """

    edge: int
    number: int = 0
    version: int = 0
    layout: int = 0

    def written(self) -> Tensor:
        """Return it as bytes, shape (64,)."""
        return torch.frombuffer(bytearray(_NUMBERS.pack(*self)), dtype=torch.uint8)

    @classmethod
    def read(cls, frame: Tensor) -> "Head":
        """Read it from the first bytes of a frame."""
        return cls(*frame[: 8 * len(cls._fields)].view(torch.int64).tolist())


_NUMBERS = Struct(f"=4q{HEAD - 4 * 8}x")
"""A head, as :meth:`Head.read` finds it."""


class Wire:
    """How the messages of an edge are laid out.

    Args:
        layouts: of a message; several where batches have several shapes.
    """

    def __init__(self, *layouts: Layout) -> None:
        self.layouts = layouts

    @property
    def nbytes(self) -> int:
        """Size of the largest message with its head."""
        return HEAD + max(map(_size, self.layouts))

    def content(self, tag: Tag, head: Head) -> int:
        """Return how many bytes follow a head.

        Raises:
            ProtocolError: no message has such a head.
        """
        if tag.index == END:
            return 0
        if not 0 <= head.layout < len(self.layouts):
            raise ProtocolError(
                f"{tag.edge} brought a message of no layout (number: {head.layout}, of {len(self.layouts)})"
            )
        return _size(self.layouts[head.layout])

    def pack(self, message: Message, edge: int) -> Iterator[Tensor]:
        """Yield a message as bytes, in pieces, which are the message's own memory where it lies as the layout does.

        Args:
            message: on any device.
            edge: number of its edge.

        Raises:
            ProtocolError: the tensors are of no layout.
        """
        last = message.tag.index == END
        number = 0 if last else self._number(message)
        yield Head(edge, message.tag.index, message.version, number).written()
        if last:
            return
        for tensor, spec in zip(message.tensors, self.layouts[number], strict=True):
            yield _bytes(tensor.detach(), spec)
            if padding := aligned(spec.nbytes) - spec.nbytes:
                yield torch.zeros(padding, dtype=torch.uint8)

    def unpack(self, content: Tensor, tag: Tag, head: Head) -> Message:
        """Read a message from bytes that nobody will write again.

        Args:
            content: uint8, as long as :meth:`content` says.
            tag: of the message.
            head: that came before.
        """
        if tag.index == END:
            return Message(tag, head.version, ())
        views, offset = [], 0
        for spec in self.layouts[head.layout]:
            views.append(_view(content[offset : offset + spec.nbytes], spec))
            offset += aligned(spec.nbytes)
        return Message(tag, head.version, tuple(views))

    def _number(self, message: Message) -> int:
        """Return which of the layouts a message has."""
        # Shapes are not on the wire, since both ends know them; which of a few they are is a number.
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


def framed(pieces: Iterable[Tensor], frame: Callable[[], Tensor]) -> Iterator[Tensor]:
    """Copy bytes into frames, one after another, and yield each as far as it is filled.

    Args:
        pieces: the bytes, in order.
        frame: returns one that may be written.
    """
    parts, filled = list[Tensor](), frame()
    room = len(filled)
    for piece in pieces:
        while len(piece) > room:
            yield _filled(filled, [*parts, piece[:room]])
            piece, parts, filled = piece[room:], [], frame()
            room = len(filled)
        parts.append(piece)
        room -= len(piece)
    yield _filled(filled[: len(filled) - room], parts)


def _filled(frame: Tensor, parts: list[Tensor]) -> Tensor:
    """Copy parts into a frame of their size, in one operation where they are on its device."""
    if all(part.device == frame.device for part in parts):
        return torch.cat(parts, out=frame)
    for part, room in zip(parts, torch.split(frame, [len(part) for part in parts]), strict=True):
        room.copy_(part, non_blocking=True)
    return frame


def _size(layout: Layout) -> int:
    return sum(aligned(spec.nbytes) for spec in layout)


def _bytes(tensor: Tensor, spec: TensorSpec) -> Tensor:
    """Return the bytes of a tensor in the memory order that it is due in."""
    if tensor.stride() == spec.stride and not (tensor.is_conj() or tensor.is_neg()):
        return tensor.as_strided((spec.numel,), (1,)).view(torch.uint8)
    laid = torch.empty(spec.numel, dtype=spec.dtype, device=tensor.device)
    laid.as_strided(spec.shape, spec.stride).copy_(tensor)
    return laid.view(torch.uint8)


def _view(part: Tensor, spec: TensorSpec) -> Tensor:
    typed = part.view(spec.dtype)
    return typed.as_strided(spec.shape, spec.stride, typed.storage_offset())
