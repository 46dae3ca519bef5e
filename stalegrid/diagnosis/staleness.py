"""By how much late gradients are others than those of now, and how much that may be.

Does not know: what makes gradients late, groups' exchange.

With w~ the weights that a late gradient is of (:mod:`stalegrid.diagnosis.points`), and H the Hessian of F,

    grad_k F(w~) - grad_k F(w) = (integral of H along the way from w to w~)_(k,:) (w~ - w),

since what stage k is late by matters no more to its gradient than what the others are late by.  So the row of H that
belongs to stage k counts, with all its columns, and the distance of all stages' weights::

    ||grad_k F(w~) - grad_k F(w)|| <= L_k ||w~ - w||,    L_k = max ||H_(k,:)||_2 along that way.

The largest eigenvalue of the block H_kk alone, times the distance of stage k alone, is no bound where stages depend on
each other.  L_k^2 is the largest eigenvalue of ``H_(k,:) H_(k,:)^T``, of which two products with H make one.  It is
measured at one model: exact where F is quadratic, an estimate of the maximum elsewhere, and no bound.
"""

import math

import torch
from torch import Tensor

from stalegrid.limits import PRODUCTS, Losses, largest


def gradient_of(losses: Losses) -> Tensor:
    """Return the gradient of F where the losses are now, in double precision, shape (n,)."""
    total = losses.gradient(0).double()
    for number in range(1, len(losses)):
        total += losses.gradient(number)
    return total / len(losses)


def smoothness(losses: Losses, sizes: list[int], stage: int, products: int = PRODUCTS) -> float:
    """Return L_k at the model that losses are at.

    Args:
        losses: whose mean is F.
        sizes: elements that each stage trains.
        stage: k, which trains something.
        products: with ``H_(k,:) H_(k,:)^T``, at most.
    """
    parameters = [p for part in losses.trained for p in part]
    hessian, start = losses.hessian(parameters), sum(sizes[:stage])
    end = start + sizes[stage]

    def product(vector: Tensor) -> Tensor:
        whole = torch.zeros(sum(sizes), dtype=vector.dtype, device=vector.device)
        whole[start:end] = vector
        return hessian(hessian(whole))[start:end].clone()

    begins = losses.start(losses.trained[stage], len(sizes) + 1 + stage)
    return math.sqrt(max(0.0, largest(product, begins, products).value))
