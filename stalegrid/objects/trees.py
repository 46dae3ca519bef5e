"""Trees of tensors: what a batch, the arguments of a model or its outputs consist of, and how it is put together.

Does not know: data sets, models, what travels where.

Stages, messages and checks see plain tuples of tensors; what else there is, structure and constants such as None, is a
form, which is the same for every batch.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

# What torch.export, DataLoader-made batches and transformers' ModelOutput are registered with.
from torch.utils import _pytree as pytree

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Form:
    """All of a tree but its tensors.

    Args:
        outline: the tree, with :data:`PLACE` where a tensor stands.
    """

    outline: Any

    def __str__(self) -> str:
        return str(self.outline)

    @classmethod
    def split(cls, tree: Any) -> "tuple[Form, Tensors]":
        """Part a tree into its form and its tensors, in order."""
        tensors = tuple(leaf for leaf in pytree.tree_leaves(tree) if isinstance(leaf, Tensor))
        return cls(mapped(lambda tensor: PLACE, tree)), tensors

    def fill(self, tensors: Sequence[Any]) -> Any:
        """Put a tree together.

        Args:
            tensors: as many as the tree has, in order; or what stands for them.
        """
        given = iter(tensors)
        return pytree.tree_map_only(_Place, lambda place: next(given), self.outline)


class _Place:
    """Where a tensor stands among leaves."""

    def __repr__(self) -> str:
        return "a tensor"

    def __reduce__(self) -> str:
        return "PLACE"


PLACE = _Place()


def tensors_in(tree: Any) -> Tensors:
    """Return the tensors of a tree, in order."""
    return Form.split(tree)[1]


def mapped(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return a tree with every tensor replaced by what a function makes of it."""
    return pytree.tree_map_only(Tensor, function, tree)


def spread(output: Any) -> tuple[Any, ...]:
    """Return what a loss is called with of a model's output: the parts of a tuple, or the output itself."""
    # A named tuple is one object with names, which its loss reads.
    return output if type(output) is tuple else (output,)


def call(function: Callable[..., Any], form: Form | None, tensors: Sequence[Any]) -> Any:
    """Call a model, or what stands for it.

    Args:
        function: that is called.
        form: of its arguments, (args, kwargs); None where it takes the tensors one by one.
        tensors: of its arguments, in order.
    """
    if form is None:
        return function(*tensors)
    args, kwargs = form.fill(tensors)
    return function(*args, **kwargs)
