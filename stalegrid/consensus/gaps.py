"""How far a neighbour's vector is from one's own, where running statistics may have no mean.

Does not know: shares, when anything is mixed, what is done with the gap.
"""

import torch
from torch import Tensor


def gap_to(theirs: Tensor, own: Tensor, statistics: slice, past: Tensor | None = None) -> Tensor:
    """Return a neighbour's vector minus one's own, 0 where a running statistic stays as it is.

    An infinity has no mean: where either vector holds one the statistic stays.  So does what both had alike at the
    version that the neighbour's is from.

    Args:
        theirs: of parameters and running statistics, and whatever is mixed behind them.
        own: likewise, of now.
        statistics: where they are in both.
        past: one's own statistics of the version of the neighbour's; None where nothing is alike.
    """
    gap = torch.sub(theirs, own)
    stay = ~gap[statistics].isfinite()
    if past is not None:
        stay |= theirs[statistics] == past
    gap[statistics].masked_fill_(stay, 0.0)
    return gap
