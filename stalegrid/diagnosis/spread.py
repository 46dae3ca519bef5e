"""How much vectors differ, part by part.

Does not know: what they are.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class Spread:
    """The mean and the unbiased variance of vectors that come one by one, in double precision.

    Welford's recursion: of each part ``v = sum_i ||x_i - mean||^2 / (N - 1)``, the trace of the covariance.

    Args:
        sizes: elements of each part of a vector.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self._sizes = list(sizes)
        self._count = 0
        self._squares = [0.0] * len(self._sizes)
        self.mean = torch.zeros(())

    def add(self, vector: Tensor) -> None:
        """Take a vector, shape (n,)."""
        vector = vector.double()
        self._count += 1
        before = vector - self.mean
        self.mean = self.mean + before / self._count
        after = vector - self.mean
        both = zip(torch.split(before, self._sizes), torch.split(after, self._sizes), strict=True)
        self._squares = [square + float(torch.dot(a, b)) for square, (a, b) in zip(self._squares, both, strict=True)]

    def variances(self) -> list[float] | None:
        """Return the variance of each part; None where one vector, or none, has come."""
        return None if self._count < 2 else [square / (self._count - 1) for square in self._squares]
