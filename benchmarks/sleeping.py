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
        return x * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        _sleep(ctx.backward_seconds)
        return gradient, gradient.sum().reshape(1), None, None


class Sleeper(nn.Module):
    """A layer that sleeps in its forward and in its backward.

    Args:
        forward: seconds a sample.
        backward: seconds a sample.
    """

    def __init__(self, forward: float, backward: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seconds = (forward, backward)

    def forward(self, x: Tensor) -> Tensor:
        """Sleep and pass on."""
        slept: Tensor = _Sleep.apply(x, self.scale, *self.seconds)  # type: ignore[no-untyped-call]
        return slept


def sleepers(layers: int, forward: float, backward: float) -> nn.Sequential:
    """Build a chain of sleeping layers.

    Args:
        layers: how many.
        forward: seconds a sample, of all layers together.
        backward: likewise.
    """
    return nn.Sequential(*(Sleeper(forward / layers, backward / layers) for _ in range(layers)))
