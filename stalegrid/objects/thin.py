"""Parameters that have values and hardly any memory, for trying what computes with a model that is too large to have.

Does not know: what is tried.

Every element is one of a few numbers: those on a diagonal are the same number in memory.  Operations read them like any
other; what changes them in place would have to say which of the elements it means.
"""

from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.objects.copies import copied, tensors_of

LEAST = 1 << 16
"""Elements from which on a parameter is worth it."""

DEVIATION = 0.02
"""Of the values."""


class Thin(nn.Parameter):
    """A parameter whose elements share memory."""

    @classmethod
    def like(cls, tensor: Tensor) -> "Thin":
        """Return a thin parameter of the shape and type of another one, with values that are drawn."""
        numbers = torch.randn(sum(tensor.shape) - tensor.ndim + 1).mul_(DEVIATION).to(tensor.dtype)
        return cls._of(numbers, tensor.shape, requires_grad=tensor.requires_grad)

    @classmethod
    def _of(cls, numbers: Tensor, shape: torch.Size, *, requires_grad: bool) -> "Thin":
        return cls(numbers.as_strided(shape, (1,) * len(shape)), requires_grad)

    @property
    def numbers(self) -> Tensor:
        """The numbers in memory, shape (n,)."""
        return self.detach().as_strided((sum(self.shape) - self.ndim + 1,), (1,))

    def __deepcopy__(self, memo: dict[int, Any]) -> "Thin":
        if id(self) not in memo:
            memo[id(self)] = Thin._of(self.numbers.clone(), self.shape, requires_grad=self.requires_grad)
        found: Thin = memo[id(self)]
        return found


def is_large(tensor: Tensor) -> bool:
    """Return whether a tensor is a parameter that could be thin."""
    fits = tensor.is_floating_point() and tensor.ndim > 1
    return isinstance(tensor, nn.Parameter) and fits and tensor.numel() >= LEAST


def dense(module: nn.Module) -> nn.Module:
    """Return a module with memory for every element; itself where it has that."""
    thin = [p for p in module.parameters() if isinstance(p, Thin)]
    if not thin:
        return module
    return copied(module, {id(p): nn.Parameter(p.detach().contiguous(), p.requires_grad) for p in thin})


def nudge(module: nn.Module) -> None:
    """Change all trained parameters a little, as an update does."""
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                # By a sixteenth: no type rounds that away, and values stay in their range.
                (parameter.numbers if isinstance(parameter, Thin) else parameter).mul_(1.0625)


def has_thin(module: nn.Module) -> bool:
    """Return whether a module has thin parameters."""
    return any(isinstance(tensor, Thin) for tensor in tensors_of(module).values())
