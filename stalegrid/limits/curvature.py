"""The largest curvature of a function of some parameters, from products of its Hessian with vectors.

Does not know: models, stages, batches, what the curvature is for.

Lanczos' method: the largest eigenvalue of what a Hessian is on the span of a start vector and its products.  It takes
the same products as power iteration and far fewer of them, and finds the largest eigenvalue itself, not that of
largest modulus, so that no shift is needed where the Hessian bends down more than up.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from stalegrid.errors import ConfigError

Product = Callable[[Tensor], Tensor]
"""Vector -> the Hessian times it, both shape (n,)."""

SETTLED = 1e-3
"""Relative change of the eigenvalue by a further product, twice in turn, below which it has settled."""

_LEAST = 4  # products before which nothing is said to have settled
_STEP = (
    1e-6  # of the length of the parameters, over which gradients are compared: further on lie the kinks of a network
)
_MISSING = ("is not implemented", "once_differentiable")


@dataclass(frozen=True, eq=False)
class Top:
    """The largest eigenvalue of a Hessian.

    Args:
        value: of it.
        vector: its direction, of length 1, shape (n,).
        settled: whether further products would have changed it by less than a thousandth.
        products: that it took.
    """

    value: float
    vector: Tensor
    settled: bool
    products: int


def largest(product: Product, start: Tensor, most: int) -> Top:
    """Return the largest eigenvalue of a Hessian.

    Args:
        product: of it with a vector.
        start: any vector with a share in all directions, shape (n,); as many vectors of this size as products are kept.
        most: products at most.

    Raises:
        ConfigError: a product is not finite, or there is to be none.
    """
    if most < 1:
        raise ConfigError(f"curvature takes at least one product with the Hessian (products: {most})")
    basis: list[Tensor] = [start / start.norm()]
    projected = np.zeros((most, most))
    value, calm = 0.0, 0
    for count in range(1, most + 1):
        made = product(basis[-1])
        rows = [float(torch.dot(one, made)) for one in basis]
        if not np.isfinite(rows).all():
            raise ConfigError("a product with the Hessian is not finite; begin with another model, or in float64")
        projected[:count, count - 1] = projected[count - 1, :count] = rows
        # Twice: what rounding leaves of a direction would come back as a copy of its eigenvalue.
        for one in (*basis, *basis):
            made -= torch.dot(one, made) * one
        values, vectors = np.linalg.eigh(projected[:count, :count])
        before, value = value, float(values[-1])
        calm = calm + 1 if count >= _LEAST and abs(value - before) <= SETTLED * abs(value) else 0
        rest, size = float(made.norm()), float(np.abs(projected).max())
        ended = rest <= 1e-6 * size or count == len(start)
        if calm >= 2 or ended or count == most:
            vector = sum((float(share) * one for share, one in zip(vectors[:, -1], basis, strict=True)), 0 * start)
            return Top(value, vector / vector.norm(), calm >= 2 or ended, count)
        basis.append(made / rest)
    raise AssertionError("there is at least one product")


def second_derivative(function: Callable[[], Tensor], parameters: Sequence[Tensor], vector: Tensor) -> Tensor:
    """Return the Hessian of a function of parameters times a vector.

    Args:
        function: of them, shape (); called once.
        parameters: of which it is.
        vector: of as many elements, shape (n,).

    Raises:
        ConfigError: an operation has no second derivative.
    """
    cut = torch.split(vector, [p.numel() for p in parameters])
    parts = [part.view_as(p) for part, p in zip(cut, parameters, strict=True)]
    try:
        first = torch.autograd.grad(function(), parameters, create_graph=True, materialize_grads=True)
        pairs = [(g, part) for g, part in zip(first, parts, strict=True) if g.requires_grad]
        if not pairs:  # the function is linear
            return torch.zeros_like(vector)
        bent, along = [g for g, _ in pairs], [part for _, part in pairs]
        found = torch.autograd.grad(bent, parameters, along, materialize_grads=True)
    except RuntimeError as problem:
        if not any(sign in str(problem) for sign in _MISSING):
            raise
        raise ConfigError(
            f"an operation of the model has no second derivative, so that its curvature is not known: {problem}; take "
            "one that has it for this measurement, such as attention written of single operations (that of torch is "
            "measured by its plain kernel anyway)"
        ) from problem
    return torch.cat([g.flatten() for g in found])


def by_differences(function: Callable[[], Tensor], parameters: Sequence[Tensor], vector: Tensor) -> float:
    """Return the curvature of a function along a vector of length 1 by gradients on both sides: no second derivative.

    It differs from that of :func:`second_derivative` where the function has kinks, and where a backward of the user's
    own, or a hook on a gradient, cannot be differentiated, which autograd does not see.

    Args:
        function: of the parameters, shape (); called twice.
        parameters: left as they are.
        vector: of as many elements, shape (n,).
    """
    cut = torch.split(vector, [p.numel() for p in parameters])
    parts = [part.view_as(p) for part, p in zip(cut, parameters, strict=True)]
    kept = [p.detach().clone() for p in parameters]
    length = math.sqrt(sum(float(p.square().sum()) for p in kept)) or 1.0
    found = 0.0
    for side in (1, -1):
        _set(parameters, [p + side * _STEP * length * part for p, part in zip(kept, parts, strict=True)])
        slopes = torch.autograd.grad(function(), parameters, materialize_grads=True)
        found += side * sum(float((g * part).sum()) for g, part in zip(slopes, parts, strict=True))
    _set(parameters, kept)
    return found / (2 * _STEP * length)


def _set(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    with torch.no_grad():
        for p, value in zip(parameters, values, strict=True):
            p.copy_(value)
