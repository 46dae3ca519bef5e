"""What arrives of tensors that are sent with a loss, in plain arithmetic, one edge after another.

Does not know: messages, layouts; it shares no code with what it is there to check.

A group's parameters are coded as one vector, in which each begins at a multiple of 64 bytes; they are taken to lie in
the order of their indices.  Other tensors are coded one by one.
"""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Reals = NDArray[np.float64]


class Carried:
    """What arrives, where some kinds of tensors are coded.

    Args:
        codecs: kind of tensors -> ``bf16``, ``int8`` or ``topk=FRACTION``, perhaps with ``,feedback``.
    """

    def __init__(self, codecs: Mapping[str, str]) -> None:
        self._codecs = dict(codecs)
        self._e: dict[tuple[object, ...], Tensor] = {}  # what was lost, by edge and place

    def tensors(self, kind: str, edge: object, sent: Sequence[Tensor | None]) -> list[Tensor | None]:
        """Return what arrives of tensors; None stands for a tensor that there is none."""
        if kind not in self._codecs:
            return list(sent)
        coded = (t is not None and t.is_floating_point() for t in sent)
        return [
            self._one(kind, (kind, edge, i), t) if here and t is not None else t
            for i, (t, here) in enumerate(zip(sent, coded, strict=True))
        ]

    def parameters(self, edge: object, sent: Sequence[Tensor]) -> list[Tensor]:
        """Return what arrives of the parameters of a stage."""
        if "parameters" not in self._codecs or not sent:
            return list(sent)
        line = 64 // sent[0].element_size()
        pieces = []
        for t in sent:
            pieces += [t.detach().reshape(-1), t.new_zeros(-t.numel() % line)]
        vector = self._one("parameters", ("parameters", edge), torch.cat(pieces))
        made, at = [], 0
        for t in sent:
            made.append(vector[at : at + t.numel()].reshape(t.shape))
            at += t.numel() + -t.numel() % line
        return made

    def _one(self, kind: str, place: tuple[object, ...], t: Tensor) -> Tensor:
        name, _, feedback = self._codecs[kind].partition(",")
        x = t.detach()
        if feedback and place in self._e:
            x = x + self._e[place]
        y = _coded(name, x.reshape(-1)).reshape(x.shape)
        if feedback:
            e = x - y
            self._e[place] = torch.where(e.isfinite(), e, torch.zeros_like(e))
        return y


def _coded(name: str, x: Tensor) -> Tensor:
    codec, _, number = name.partition("=")
    if codec == "topk":
        return _topk(x, float(number))
    rules: dict[str, Callable[[Reals], Reals]] = {"int8": _int8, "bf16": _bf16}
    return torch.from_numpy(rules[codec](x.to(torch.float64).numpy())).to(x.dtype)


def _topk(x: Tensor, fraction: float) -> Tensor:
    sizes = [float("inf") if v != v else abs(v) for v in x.tolist()]
    first = sorted(range(len(sizes)), key=lambda i: (-sizes[i], i))[: max(1, round(fraction * len(sizes)))]
    y = torch.zeros_like(x)
    y[first] = x[first]
    return y


def _bf16(x: Reals) -> Reals:
    bits = x.astype(np.float32).view(np.uint32)
    # Half of what is cut off is added first, and a tie goes to the even one.
    up = (bits + np.uint32(0x7FFF) + ((bits >> np.uint32(16)) & np.uint32(1))) & np.uint32(0xFFFF0000)
    return np.where(np.isfinite(x), up.view(np.float32), x).astype(np.float64)


def _int8(x: Reals) -> Reals:
    E = int(np.frexp(np.abs(x[np.isfinite(x)]).max(initial=0.0))[1])
    y = np.full_like(x, np.nan)
    for b in range(0, len(x), 64):
        block = x[b : b + 64]
        finite = np.isfinite(block)
        there = np.ldexp(block[finite], 22 - E)
        scale = float(np.float16(np.float32(np.abs(there).max(initial=0.0) / 127)))
        q = np.clip(np.rint(there / scale), -127, 127) if scale else np.zeros_like(there)
        y[b : b + 64][finite] = np.ldexp(q * scale, E - 22)
    return y
