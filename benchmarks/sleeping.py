"""A model whose layers do nothing but take time, to emulate devices that this machine does not have."""

import time
from typing import Any

import torch
from torch import Tensor, nn

_LATE = 0.0005
"""Seconds by which the system may wake a sleeper too late."""


def _sleep(seconds: float) -> None:
    """Sleep exactly so long: the rest, which the system would oversleep, is waited for awake."""
    end = time.perf_counter() + seconds
    if seconds > _LATE:
        time.sleep(seconds - _LATE)
    while time.perf_counter() < end:
        pass


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward_seconds = backward * len(x)
        _sleep(forward * len(x))
        ctx.size = len(scale)
        return x * scale[0, 0]

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        _sleep(ctx.backward_seconds)
        of_scale = gradient.new_zeros(ctx.size, ctx.size)
        of_scale[0, 0] = gradient.sum()
        return gradient, of_scale, None, None


class Sleeper(nn.Module):
    """A layer that sleeps in its forward and in its backward.

    Args:
        forward: seconds a sample.
        backward: seconds a sample.
        size: its parameters are a matrix of so many rows and columns, for those who send them.
    """

    def __init__(self, forward: float, backward: float, size: int = 1) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size, size))
        self.seconds = (forward, backward)

    def forward(self, x: Tensor) -> Tensor:
        """Sleep and pass on."""
        slept: Tensor = _Sleep.apply(x, self.scale, *self.seconds)  # type: ignore[no-untyped-call]
        return slept


def sleepers(layers: int, forward: float, backward: float, size: int = 1) -> nn.Sequential:
    """Build a chain of sleeping layers.

    Args:
        layers: how many.
        forward: seconds a sample, of all layers together.
        backward: likewise.
        size: rows and columns of the parameters of each.
    """
    return nn.Sequential(*(Sleeper(forward / layers, backward / layers, size) for _ in range(layers)))
