"""One round of CHOCO between the replicas of a stage: arXiv 1902.00340, Algorithm 2, in its letters.

Does not know: messages, turns; it shares no code with what it is there to check.
"""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from torch import Tensor


def choco(
    x: Sequence[Sequence[Tensor]],
    xh: list[list[Tensor]],
    W: NDArray[np.float64],
    gamma: float,
    Q: Callable[[Sequence[Tensor]], Sequence[Tensor]],
) -> None:
    """Let groups exchange what has changed, and move.

    Args:
        x: parameters of each group after its step, moved in place.
        xh: what all know of each group, at first zeros; replaced.
        W: S x S shares.
        gamma: how far to move.
        Q: what arrives of the parameters of a group.
    """
    S = len(x)
    for i in range(S):
        q = Q([a - b for a, b in zip(x[i], xh[i], strict=True)])
        xh[i] = [a + b for a, b in zip(xh[i], q, strict=True)]
    for i in range(S):
        for p, own in enumerate(xh[i]):
            total = own * 0
            for j in range(S):
                if j != i and W[i, j] != 0:
                    total = total + (xh[j][p] - own) * float(W[i, j])
            x[i][p].copy_(x[i][p] + total * gamma)
