"""The mean of replicas, and how far they are from it.

Does not know: who has replicas, messages.
"""

import warnings
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from stalegrid.consensus import weighed
from stalegrid.stages import StageLayout

BLOCK = 1 << 20
"""Elements that are looked at at once."""


def mean(replicas: Sequence[Tensor], layout: StageLayout, weights: Sequence[float]) -> Tensor:
    """Return the mean; a tensor that all replicas have alike stays as it is, which the sum of three would round."""
    first, *others = replicas
    total = first * weights[0]
    for vector, weight in zip(others, weights[1:], strict=True):
        total += weighed(vector, weight)
    total.div_(sum(weights))
    for entry in layout.entries:
        own = entry.view(first)
        if all(torch.equal(entry.view(vector), own) for vector in others):
            entry.view(total).copy_(own)
    return total


def squares(replicas: Sequence[Tensor], middle: Tensor, layout: StageLayout) -> list[float]:
    """Return ``||w_s - w_mean||^2`` of each replica, over parameters.

    In double precision: differences of nearly equal replicas, summed over all parameters.  A block at a time, since a
    vector may take most of the memory that there is.
    """
    blocks = torch.split(middle[: layout.trained], BLOCK)
    return [sum(map(_square, torch.split(vector[: layout.trained], BLOCK), blocks)) for vector in replicas]


def _square(vector: Tensor, middle: Tensor) -> float:
    return float((vector.double() - middle.double()).square().sum())


def unlike(layout: StageLayout, counters: Sequence[Tensor]) -> list[str]:
    """Return the names of buffers of whole numbers that replicas do not share.

    Args:
        layout: of the stage.
        counters: of each replica, as one vector.
    """
    first, *others = (counted(layout, vector) for vector in counters)
    return [name for name, value in first.items() if not all(torch.equal(value, other[name]) for other in others)]


def counted(layout: StageLayout, vector: Tensor) -> dict[str, Tensor]:
    """Return the buffers of whole numbers, by name."""
    parts = torch.split(vector, [torch.Size(shape).numel() for _, shape in layout.counters])
    return {name: part.view(shape) for (name, shape), part in zip(layout.counters, parts, strict=True)}


def put(state: Mapping[str, Tensor], layout: StageLayout, vector: Tensor, counters: Tensor) -> None:
    """Copy what a vector of parameters and buffers holds, and one of buffers of whole numbers, to where names say."""
    for entry in layout.entries:
        state[entry.name].copy_(entry.view(vector))
    for name, value in counted(layout, counters).items():
        state[name].copy_(value)


class Unlike:
    """Says once of each buffer of whole numbers that replicas have unlike ones, which have no mean.

    Attributes:
        told: names of which it was said.
    """

    def __init__(self) -> None:
        self.told: set[str] = set()

    def tell(self, names: Sequence[str]) -> None:
        """Say it of those of which it was not said."""
        for name in names:
            if name not in self.told:
                self.told.add(name)
                warnings.warn(
                    f"groups have unlike values of a buffer of whole numbers (buffer: {name}), which are not mixed; "
                    "the measured and saved model has those of the first group",
                    stacklevel=1,
                )
