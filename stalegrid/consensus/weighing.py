"""What each group weighs in a mean over groups: as much as its batch has samples.

Does not know: what is averaged, how groups mix.

The largest weighs 1.  So where all are alike nothing is multiplied and nothing rounded: their mean is the sum over S,
to the bit.
"""

from collections.abc import Sequence

from torch import Tensor


def weights_of(sizes: Sequence[int]) -> tuple[float, ...]:
    """Return the weights of groups.

    Args:
        sizes: samples of their batches, of those groups alone that are there.
    """
    largest = max(sizes)
    return tuple(size / largest for size in sizes)


def weighed(vector: Tensor, weight: float) -> Tensor:
    """Return a group's part of a sum, which is the vector itself where it weighs 1."""
    return vector if weight == 1.0 else vector * weight
