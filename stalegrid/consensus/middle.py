"""The mean of vectors by a row of a mixing matrix, in the order of the groups.

Does not know: what the vectors are, when groups mix.

Each group computes it for itself.  Where a row is the plain mean of those in it (weighed by the samples of their
batches), it is computed as that: the weighed sum over the sum of the weights.  So all groups that have the same row
have the same bits, which the entries themselves do not give, since a diagonal entry is what others leave of 1.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stalegrid.consensus.weighing import weighed, weights_of

_ROUNDING = 1e-9


def middle(vectors: Mapping[int, Tensor], shares: Mapping[int, float], sizes: Sequence[int]) -> Tensor:
    """Return the mean of vectors.

    Args:
        vectors: by group, one's own among them.
        shares: of the same groups, of which none is 0.
        sizes: samples of every group's batch.
    """
    groups = sorted(vectors)
    weights = weights_of([sizes[r] for r in groups])
    total = sum(weights)
    if not is_plain(shares, sizes):
        weights, total = tuple(shares[r] for r in groups), 1.0
    found = torch.zeros_like(vectors[groups[0]])
    for group, weight in zip(groups, weights, strict=True):
        found += weighed(vectors[group], weight)
    return found if total == 1.0 else found.div_(total)


def is_plain(shares: Mapping[int, float], sizes: Sequence[int]) -> bool:
    """Return whether groups are taken as much as their batches have samples, and no other way.

    Args:
        shares: by group.
        sizes: samples of every group's batch.
    """
    groups = sorted(shares)
    weights = weights_of([sizes[r] for r in groups])
    total = sum(weights)
    return all(abs(shares[r] - weight / total) <= _ROUNDING for r, weight in zip(groups, weights, strict=True))
