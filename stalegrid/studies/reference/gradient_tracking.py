"""Gradient tracking as plain loops over the groups: Nedic, Olshevsky and Shi, arXiv 1607.03218.

Does not know: how steps are made; it shares no code with what it is there to check.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stalegrid.studies.reference.between import Shares, Stages, gap, statistics, trained

Key = tuple[int, int, int]


class GradientTracking:
    """``q' = P q - g + g'``, ``w' = P w - lr q'``, whatever the step makes of q'; P is I where groups do not mix.

    A parameter that nobody has used whose q has come here has no q and gets no step.

    Args:
        P: mixing turn -> shares.
        H: updates from one mixing to the next.
    """

    def __init__(self, P: Shares, H: int) -> None:
        self.P, self.H = P, H
        self.q: dict[Key, Tensor] = {}
        self.g: dict[Key, Tensor] = {}
        self.used: set[Key] = set()
        self.x: list[list[list[Tensor]]] = []  # parameters, then statistics, of the start of the round

    def opened(self, n: int, w: Stages) -> None:
        """Note what groups share."""
        self.x = [[[x.clone() for x in (*trained(f), *statistics(f))] for f in group] for group in w]

    def stepping(self, n: int, w: Stages) -> None:
        """Put q in the place of the gradients."""
        P, q, used = self._shares(n), dict(self.q), set(self.used)
        for (s, k, i), p in _all(w).items():
            new = torch.zeros_like(p) if p.grad is None else p.grad
            own = q.get((s, k, i), torch.zeros_like(p))
            pull = torch.zeros_like(p)
            for r in range(len(w)):
                if P is not None and r != s and P[s, r] != 0:
                    pull = pull + (q.get((r, k, i), torch.zeros_like(p)) - own) * float(P[s, r])
                    if (r, k, i) in used:
                        self.used.add((s, k, i))
            if p.grad is not None:
                self.used.add((s, k, i))
            self.q[s, k, i] = own + pull - self.g.get((s, k, i), torch.zeros_like(p)) + new
            self.g[s, k, i] = new.clone()
        for key, p in _all(w).items():
            p.grad = self.q[key].clone() if key in self.used else None

    def stepped(self, n: int, w: Stages) -> None:
        """Mix what groups have shared."""
        P = self._shares(n)
        if P is None:
            return
        for s, group in enumerate(w):
            for k, f in enumerate(group):
                size = len(trained(f))
                for i, value in enumerate((*trained(f), *statistics(f))):
                    delta, own = torch.zeros_like(value), self.x[s][k][i]
                    for r in range(len(w)):
                        if r != s and P[s, r] != 0:
                            theirs = self.x[r][k][i]
                            apart = theirs - own if i < size else gap(theirs, own)
                            delta = delta + apart * float(P[s, r])
                    value.copy_(value + delta)

    def _shares(self, n: int) -> NDArray[np.float64] | None:
        return self.P((n + 1) // self.H - 1) if (n + 1) % self.H == 0 else None


def _all(w: Stages) -> dict[Key, nn.Parameter]:
    return {
        (s, k, i): p
        for s, group in enumerate(w)
        for k, f in enumerate(group)
        for i, p in enumerate(p for p in f.parameters() if p.requires_grad)
    }
