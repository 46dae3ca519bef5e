"""A rate that keeps its distance from where delayed gradient descent becomes unstable, as an optimizer around another.

Does not know: programs, agents, messages; it shares no code with what it is there to check.

Levin and May 1976: w_{t+1} = w_t - eta a w_{t-m} is stable iff eta a < 2 sin(pi / (2 (2m + 1))), which is 2 without
delay; so update t, whose gradient is m_t late, has the rate eta sin(pi / (2 (2 m_t + 1))).
"""

import math
from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer

from stalegrid.studies.reference.passes import Named


def steadied(optimizer: Callable[[Named], Optimizer], m: Callable[[Named], int]) -> Callable[[Named], Optimizer]:
    """Return what makes an optimizer with such rates.

    Args:
        optimizer: named parameters -> the optimizer within.
        m: named parameters -> the staleness of their updates, up to the number of the update.
    """
    return lambda named_parameters: _Steadied(optimizer(named_parameters), m(named_parameters))


class _Steadied(Optimizer):
    """Has the groups and the state of the optimizer within, so that a schedule and a mixing change those."""

    def __init__(self, within: Optimizer, m: int) -> None:
        super().__init__(within.param_groups, within.defaults)
        self.param_groups, self.state = within.param_groups, within.state
        self.within, self.m, self.t = within, m, 0

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        eta = [group["lr"] for group in self.param_groups]
        for group in self.param_groups:
            group["lr"] *= math.sin(math.pi / (2 * (2 * min(self.t, self.m) + 1)))
        self.within.step()
        for group, own in zip(self.param_groups, eta, strict=True):
            group["lr"] = own
        self.t += 1
