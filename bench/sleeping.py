"""A model whose layers do nothing but take time, to emulate devices that this machine does not have."""

import time
from typing import Any

import torch
from torch import Tensor, nn


class _Sleep(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, forward: float, backward: float) -> Tensor:
        ctx.backward_seconds = backward
        time.sleep(forward)
        return x * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None, None]:
        time.sleep(ctx.backward_seconds)
        return gradient, gradient.sum().reshape(1), None, None


class Sleeper(nn.Module):
    """A layer that sleeps in its forward and in its backward.

    Args:
        forward: seconds.
        backward: seconds.
    """

    def __init__(self, forward: float, backward: float) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.seconds = (forward, backward)

    def forward(self, x: Tensor) -> Tensor:
        """Sleep and pass on."""
        return _Sleep.apply(x, self.scale, *self.seconds)  # type: ignore[no-any-return]


def sleepers(stages: int, forward: float, backward: float) -> nn.Sequential:
    """Build a chain of sleeping layers."""
    return nn.Sequential(*(Sleeper(forward, backward) for _ in range(stages)))
