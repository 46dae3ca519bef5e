"""How the messages of one edge are coded, tensor by tensor.

Does not know: edges, what the tensors are, agents.

Of each tensor some elements at the start may lose something; the rest, and tensors of whole numbers, travel as they
are.  A tensor is coded in the order of its indices, however it lies in memory, and arrives in the memory order that it
is due in.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from stalegrid.codecs.codec import Codec, Tensors
from stalegrid.errors import ProtocolError
from stalegrid.programs import Layout, TensorSpec, flat_layout


@dataclass(frozen=True)
class Coding:
    """The codec of an edge, with all that both its ends know of its messages.

    Args:
        codec: of the messages.
        feedback: whether what was lost of a message is added to the next one.
        layouts: of a message as its sender makes it; several where batches have several shapes.
        spans: for each of these, how many elements at the start of each tensor are coded.
        echoed: whether a sender needs to know what of its messages arrives.
        flagged: whether the first tensor of bytes says of each one before it whether it is there, or stands for none.
    """

    codec: Codec
    feedback: bool
    layouts: tuple[Layout, ...]
    spans: tuple[tuple[int, ...], ...]
    echoed: bool = False
    flagged: bool = False

    @cached_property
    def coded(self) -> tuple[Layout, ...]:
        """What travels, by layout."""
        return tuple(map(self._coded, self.layouts, self.spans))

    @property
    def alike(self) -> bool:
        """Whether what travels does not tell two layouts apart."""
        return len(set(map(_kinds, self.coded))) < len(self.coded)

    @property
    def unsent(self) -> int:
        """Bytes that a sender keeps of what it has not sent."""
        own = max(sum(map(_nbytes, layout, spans)) for layout, spans in zip(self.layouts, self.spans, strict=True))
        return own if self.feedback else 0

    def vectors(self, tensors: Tensors) -> dict[int, Tensor]:
        """Return what is coded of a message, by the place of its tensor."""
        spans = self.spans[_which(self.layouts, tensors)]
        return {i: _flat(tensors[i])[:span] for i, span in enumerate(spans) if span}

    def absent(self, tensors: Tensors) -> frozenset[int]:
        """Return the places of tensors that stand for nothing."""
        if not self.flagged:
            return frozenset()
        flags = next(t for t in tensors if t.dtype == torch.uint8)
        return frozenset(i for i, there in enumerate(flags.tolist()) if not there)

    def encode(self, tensors: Tensors, vectors: Mapping[int, Tensor]) -> Tensors:
        """Return what travels.

        Args:
            tensors: of the message.
            vectors: what is coded, in the place of what :meth:`vectors` returns of them.
        """
        made: list[Tensor] = []
        for i, tensor in enumerate(tensors):
            if i not in vectors:
                made.append(tensor)
                continue
            made += self.codec.encode(vectors[i])
            if len(rest := _flat(tensor)[len(vectors[i]) :]):
                made.append(rest.clone())
        return tuple(made)

    def decode(self, parts: Tensors) -> Tensors:
        """Return the tensors of a message of what has travelled."""
        number, left = _which(self.coded, parts), iter(parts)
        specs = zip(self.layouts[number], self.spans[number], strict=True)
        return tuple(self._decoded(spec, span, left) if span else next(left) for spec, span in specs)

    def _coded(self, layout: Layout, spans: Sequence[int]) -> Layout:
        made: Layout = ()
        for spec, span in zip(layout, spans, strict=True):
            made += self.codec.layout(span, spec.dtype) if span else (spec,)
            made += flat_layout(spec.numel - span, spec.dtype) if 0 < span < spec.numel else ()
        return made

    def _decoded(self, spec: TensorSpec, span: int, left: Iterator[Tensor]) -> Tensor:
        parts = tuple(islice(left, len(self.codec.layout(span, spec.dtype))))
        vector = self.codec.decode(parts, span, spec.dtype)
        if span < spec.numel:
            vector = torch.cat([vector, next(left)])
        # Kernels may sum in another order where memory lies otherwise than the sender's.
        made = torch.empty_strided(spec.shape, spec.stride, dtype=spec.dtype, device=vector.device)
        return made.copy_(vector.view(spec.shape))


def _flat(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(-1)


def _nbytes(spec: TensorSpec, span: int) -> int:
    return span * spec.dtype.itemsize


def _kinds(layout: Layout) -> tuple[tuple[tuple[int, ...], torch.dtype], ...]:
    return tuple((spec.shape, spec.dtype) for spec in layout)


def _which(layouts: Sequence[Layout], tensors: Tensors) -> int:
    """Return which of some layouts tensors have.

    Raises:
        ProtocolError: none.
    """
    found = tuple((tuple(t.shape), t.dtype) for t in tensors)
    for number, layout in enumerate(layouts):
        if _kinds(layout) == found:
            return number
    raise ProtocolError(
        f"a message has another content than its edge carries (found: {found}, due: "
        f"{' or '.join(str(_kinds(layout)) for layout in layouts)}); let all batches have shapes of the first epoch, "
        "and allow as many (training.shapes)"
    )
