"""Outer optimizers over groups that train apart, in the papers' letters, tensor by tensor.

Does not know: grids, optimizers of groups.

DiLoCo: Douillard et al., arXiv 2311.08105, algorithm 1, with Nesterov's momentum as torch.optim.SGD has it.  Streaming
DiLoCo: Douillard et al., arXiv 2501.18512.  NoLoCo: Kolehmainen et al., arXiv 2506.10911, and its authors' code.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class DiLoCo:
    """The outer optimizer of one group and one tensor.

    Args:
        theta: the tensor at the start.
        eta: outer rate.
        mu: outer momentum.
        alpha: share that a group keeps of its distance from what all begin with anew.
    """

    def __init__(self, theta: Tensor, eta: float, mu: float, alpha: float) -> None:
        self.theta, self.eta, self.mu, self.alpha = theta.clone(), eta, mu, alpha
        self.v = torch.zeros_like(theta)

    def step(self, thetas: Sequence[Tensor], shares: Sequence[float], B: Sequence[int], own: Tensor) -> Tensor:
        """Return what the group goes on with.

        Args:
            thetas: of those that meet, in the order of the groups.
            shares: of each.
            B: samples of the batches of each.
            own: what the group has now.
        """
        delta = self.theta - mean(thetas, shares, B)
        self.v = self.mu * self.v + delta
        self.theta = self.theta - self.eta * (delta + self.mu * self.v)
        return self.theta if self.alpha == 0 else self.theta + self.alpha * (own - self.theta)


class NoLoCo:
    """The outer optimizer of one group and one tensor.

    Args:
        theta: the tensor at the start.
        eta: outer rate.
        mu: outer momentum.
    """

    def __init__(self, theta: Tensor, eta: float, mu: float) -> None:
        self.phi, self.eta, self.mu = theta.clone(), eta, mu
        self.m = torch.zeros_like(theta)

    def step(
        self, thetas: Sequence[Tensor], phis: Sequence[Tensor], shares: Sequence[float], B: Sequence[int]
    ) -> Tensor:
        """Return what the group goes on with.

        Args:
            thetas: of those that meet, in the order of the groups.
            phis: with what these began.
            shares: of each.
            B: samples of the batches of each.
        """
        moved = mean([theta - phi for theta, phi in zip(thetas, phis, strict=True)], shares, B)
        self.m = (self.mu * self.m + self.eta * moved) + self.eta * (mean(phis, shares, B) - self.phi)
        self.phi = self.phi + self.m
        return self.phi


def mean(values: Sequence[Tensor], shares: Sequence[float], B: Sequence[int]) -> Tensor:
    """Return the mean of some tensors, over all samples alike where that is what the shares say."""
    weights = [b / max(B) for b in B]
    plain = all(abs(share * sum(B) - b) < 1e-9 * sum(B) for share, b in zip(shares, B, strict=True))
    total = torch.zeros_like(values[0])
    for value, factor in zip(values, weights if plain else shares, strict=True):
        total = total + factor * value
    return total / sum(weights) if plain else total
