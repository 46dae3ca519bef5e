"""Running statistics between groups: what a unit adds to its own.

Does not know: parameters, when groups mix, how messages travel.

They are mixed like parameters, with two exceptions.  An infinity has no mean: where one's own or a neighbour's buffer
holds one, as observers of extremes do before their first batch, the own value stays.  And what both had alike at the
same version stays too: a counter in a floating buffer would be held back by values of some updates ago.
"""

from collections.abc import Mapping

import torch
from torch import Tensor

from stalegrid.consensus.gaps import gap_to


def pulled(now: Tensor, then: Mapping[int, Tensor], shares: Mapping[int, float], own: int) -> Tensor:
    """Return what running statistics move by towards those of others, ``sum_r P_r (x_r(then) - x(now))``.

    Args:
        now: one's own, shape (statistics,).
        then: those of all at one version, by group; summed in the order of the groups.
        shares: of the groups, as the mixing matrix has them.
        own: one's group.
    """
    moved = torch.zeros_like(now)
    for group in sorted(then.keys() - {own}):
        moved += gap_to(then[group], now, slice(None), then[own]).mul_(shares[group])
    return moved
