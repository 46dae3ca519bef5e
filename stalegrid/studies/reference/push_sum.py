"""Stochastic gradient push as plain loops over the groups: Assran et al., arXiv 1811.10792.

Does not know: how steps are made; it shares no code with what it is there to check.

The weights of the loops are z.  Of x there is what came of it, divided by w: the paper's sums are taken as means of z
weighed by ``A_sr w_r``, so that they round as the library's do.  That these are the paper's own is a test of its own.
"""

import math

import torch
from torch import Tensor

from stalegrid.studies.reference.between import Shares, Stages, gap, statistics, trained


class PushSum:
    """``x' = x + d``, ``x = A x'``, ``w = A w``, ``z = x / w``, with d what a step did to z.

    Args:
        A: mixing turn -> what each group takes; columns sum to 1.
        H: updates from one mixing to the next.
    """

    def __init__(self, A: Shares, H: int) -> None:
        self.A, self.H = A, H
        self.omega = [1.0] * len(A(0))
        self.z: list[list[list[Tensor]]] = []

    def opened(self, n: int, w: Stages) -> None:
        """Note z as the steps find it."""
        self.z = [[[p.clone() for p in trained(f)] for f in group] for group in w]

    def stepping(self, n: int, w: Stages) -> None:
        """Do nothing."""

    def stepped(self, n: int, w: Stages) -> None:
        """Divide what the steps did by w, and mix."""
        for s, group in enumerate(w):
            for k, f in enumerate(group):
                for p, z in zip(trained(f), self.z[s][k], strict=True):
                    if self.omega[s] != 1:
                        p.copy_(z + (p - z) / self.omega[s])
        if (n + 1) % self.H:
            return
        A, before = self.A((n + 1) // self.H - 1), self.omega
        S = range(len(w))
        self.omega = [math.fsum(float(A[s, r]) * before[r] for r in S) for s in S]
        old = [[[x.clone() for x in (*trained(f), *statistics(f))] for f in group] for group in w]
        for s in S:
            for k, f in enumerate(w[s]):
                for i, value in enumerate((*trained(f), *statistics(f))):
                    delta = torch.zeros_like(value)
                    for r in S:
                        if r != s and A[s, r] != 0:
                            theirs, own = old[r][k][i], old[s][k][i]
                            apart = theirs - own if i < len(trained(f)) else gap(theirs, own)
                            delta = delta + apart * (float(A[s, r]) * before[r] / self.omega[s])
                    value.copy_(old[s][k][i] + delta)
