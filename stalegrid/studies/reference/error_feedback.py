"""Error feedback for delayed updates as an optimizer around another one.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Zmushko et al., arXiv 2606.30634: with u_t the complete update of the optimizer within, rate and weight decay included,
w_{t+1} = w_t - u_t - c (u_t - u_{t-1}).  The first update is plain; u_{t-1} is without feedback; a parameter without a
gradient stays where it is, and its u is 0.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

from stalegrid.studies.reference.passes import Named


def fed_back(
    optimizer: Callable[[Named], Optimizer], c: float, m: Callable[[Named], int] | None = None
) -> Callable[[Named], Optimizer]:
    """Return what makes an optimizer with error feedback.

    Args:
        optimizer: named parameters -> the optimizer within.
        c: how much of the difference between two updates is added.
        m: named parameters -> the staleness of their updates, with which c is multiplied, up to the number of the
            update; 1 throughout if left out.
    """

    def make(named_parameters: Named) -> Optimizer:
        return _FedBack(optimizer(named_parameters), c, None if m is None else m(named_parameters))

    return make


class _FedBack(Optimizer):
    """Has the groups and the state of the optimizer within, so that a schedule and a mixing change those."""

    def __init__(self, within: Optimizer, c: float, m: int | None) -> None:
        super().__init__(within.param_groups, within.defaults)
        self.param_groups, self.state = within.param_groups, within.state
        self.within, self.c, self.m, self.t = within, c, m, 0
        self.u = {p: torch.zeros_like(p) for group in self.param_groups for p in group["params"]}

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        w = {p: p.clone() for p in self.u}
        self.within.step()
        for p in self.u:
            if p.grad is None:
                self.u[p] = torch.zeros_like(p)
                continue
            u = w[p] - p
            if self.t > 0:
                p.copy_(p - (u - self.u[p]) * (self.c if self.m is None else self.c * min(self.t, self.m)))
            self.u[p] = u
        self.t += 1
