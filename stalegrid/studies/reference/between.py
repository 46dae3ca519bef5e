"""What the loops of groups that mix share: which tensors are mixed, and how far two of them are apart.

Does not know: which rules there are; it shares no code with what it is there to check.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

Stages = list[list[nn.Module]]
"""The replicas of the stages, [s][k]."""

Shares = Callable[[int], NDArray[np.float64]]
"""Mixing turn -> S x S shares: row s is what group s takes of each."""


class Rule(Protocol):
    """How groups mix: what is due in round n, on all stages at once."""

    def opened(self, n: int, w: Stages) -> None:
        """Do what is due before the forwards."""

    def stepping(self, n: int, w: Stages) -> None:
        """Do what is due between backwards and steps."""

    def stepped(self, n: int, w: Stages) -> None:
        """Do what is due after the steps."""


def trained(f: nn.Module) -> list[Tensor]:
    """Return the trained parameters themselves."""
    return [p.data for p in f.parameters() if p.requires_grad]


def statistics(f: nn.Module) -> list[Tensor]:
    """Return the running statistics themselves."""
    return [b for b in f.buffers() if b.is_floating_point()]


def gap(theirs: Tensor, own: Tensor) -> Tensor:
    """Return the difference of two statistics, 0 where one is infinite."""
    found = theirs - own
    return torch.where(found.isfinite(), found, 0.0)
