"""Exact diffusion as plain loops over the groups: Yuan, Ying, Zhao and Sayed, arXiv 1702.05122.

Does not know: how steps are made; it shares no code with what it is there to check.
"""

import torch
from torch import Tensor

from stalegrid.studies.reference.between import Shares, Stages, gap, statistics, trained


class ExactDiffusion:
    """``phi = psi' + w - psi``, ``w = (I + P)/2 phi``, with psi what the step before made, at first w.

    Args:
        P: of every turn, the same.
        H: updates from one mixing to the next: 1.
    """

    def __init__(self, P: Shares, H: int) -> None:
        assert H == 1
        self.P = P(0)
        self.w: dict[tuple[int, int, int], Tensor] = {}
        self.psi: dict[tuple[int, int, int], Tensor] = {}

    def opened(self, n: int, w: Stages) -> None:
        """Note what the steps begin with."""
        self.w = {key: p.clone() for key, p in _all(w).items()}
        self.psi = self.psi or self.w

    def stepping(self, n: int, w: Stages) -> None:
        """Do nothing."""

    def stepped(self, n: int, w: Stages) -> None:
        """Correct what the steps made, and mix it."""
        psi = {key: p.clone() for key, p in _all(w).items()}
        phi = {key: made + (self.w[key] - self.psi[key]) for key, made in psi.items()}
        self.psi = psi
        for (s, k, i), p in _all(w).items():
            delta = torch.zeros_like(p)
            for r in range(len(w)):
                if r != s and self.P[s, r] != 0:
                    delta = delta + (phi[r, k, i] - phi[s, k, i]) * float(self.P[s, r] / 2)
            p.copy_(phi[s, k, i] + delta)
        old = [[[b.clone() for b in statistics(f)] for f in group] for group in w]
        for s, group in enumerate(w):
            for k, f in enumerate(group):
                for i, b in enumerate(statistics(f)):
                    delta = torch.zeros_like(b)
                    for r in range(len(w)):
                        if r != s and self.P[s, r] != 0:
                            delta = delta + gap(old[r][k][i], old[s][k][i]) * float(self.P[s, r] / 2)
                    b.copy_(old[s][k][i] + delta)


def _all(w: Stages) -> dict[tuple[int, int, int], Tensor]:
    return {(s, k, i): p for s, group in enumerate(w) for k, f in enumerate(group) for i, p in enumerate(trained(f))}
