"""What the plain loops share: the forward of one stage on a copy of it, and the backward of that forward.

Does not know: batches, stages, updates; it shares no code with what it is there to check.

A batch is forwarded on a copy of its stage, so its late backward cannot see later weights unless they are written
into the copy.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

Tensors = tuple[Tensor, ...]
Named = list[tuple[str, nn.Parameter]]
Gradients = tuple[Tensor | None, ...]
"""None where nothing depends on a tensor, which is not a gradient of zero."""


class Pass(NamedTuple):
    """One batch between its forward and its backward, on a copy of its stage."""

    f: nn.Module
    x: Tensors
    y: Tensors


def forward(
    f: nn.Module, x: Tensors, differentiate: bool, w: Sequence[Tensor] | None = None, statistics: bool = True
) -> Pass:
    """Forward on a copy, and give the running statistics back.

    Args:
        f: stage.
        x: its inputs.
        differentiate: whether the gradient of the inputs is wanted.
        w: weights to read; None for those of ``f``.
        statistics: whether ``f`` takes over the running statistics.
    """
    # A copy for each batch in flight: dear, and so plain that it can be read beside the paper.
    own = copy.deepcopy(f)
    _write(own, w)
    x = tuple(t.detach().requires_grad_(differentiate and t.is_floating_point()) for t in x)
    y = own(*x)
    if statistics:
        for live, made in zip(f.buffers(), own.buffers(), strict=True):
            live.copy_(made)
    return Pass(own, x, y if isinstance(y, tuple) else (y,))


def backward(done: Pass, g: Gradients, f: nn.Module, w: Sequence[Tensor] | None = None) -> Gradients:
    """Add to the gradients of ``f``; return those of the inputs.

    Args:
        done: the forward.
        g: gradients of its outputs.
        f: stage.
        w: weights to read; None for those of the forward.
    """
    _write(done.f, w)
    pairs = list(zip(f.parameters(), done.f.parameters(), strict=True))
    for live, own in pairs:
        # The copy adds to the gradient of the stage, which all batches of an update share.
        own.grad = live.grad
    roots = [(y, d) for y, d in zip(done.y, g, strict=True) if y.requires_grad and d is not None]
    if roots:
        torch.autograd.backward([y for y, _ in roots], [d for _, d in roots])
    for live, own in pairs:
        live.grad = own.grad
    return tuple(x.grad for x in done.x)


def weights(f: nn.Module) -> list[Tensor]:
    """Return the weights of now: the tensors themselves, without their history."""
    return [p.data for p in f.parameters()]


def named(f: nn.Module) -> Named:
    """Return the parameters that are trained, and their names in the stage."""
    return [(name, p) for name, p in f.named_parameters() if p.requires_grad]


def _write(f: nn.Module, w: Sequence[Tensor] | None) -> None:
    """Write weights behind autograd's back: activations stay those of the forward."""
    if w is not None:
        for live, value in zip(weights(f), w, strict=True):
            live.copy_(value)
