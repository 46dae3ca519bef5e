"""Trees of tensors: what a batch, the arguments of a model or its outputs consist of, and how it is put together.

Does not know: data sets, models, what travels where.

Stages, messages and checks see plain tuples of tensors; what else there is, structure and constants such as None, is a
form, which is the same for every batch.
"""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from torch import Tensor

# What torch.export, DataLoader-made batches and transformers' ModelOutput are registered with.
from torch.utils import _pytree as pytree

Tensors = tuple[Tensor, ...]
Shapes = tuple[tuple[int, ...], ...]


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
    def split(cls, tree: Any, kind: type | tuple[type, ...] = Tensor) -> "tuple[Form, tuple[Any, ...]]":
        """Part a tree into its form and its tensors, in order.

        Args:
            tree: that is parted.
            kind: what is taken for a tensor.
        """
        found: list[Any] = []

        def taken(leaf: Any) -> Any:
            if not isinstance(leaf, kind):
                return leaf
            found.append(leaf)
            return PLACE

        return cls(each_leaf(taken, tree)), tuple(found)

    def fill(self, tensors: Sequence[Any]) -> Any:
        """Put a tree together.

        Args:
            tensors: as many as the tree has, in order; or what stands for them.
        """
        given = iter(tensors)
        return each_leaf(lambda leaf: next(given) if isinstance(leaf, _Place) else leaf, self.outline)


class _Place:
    """Where a tensor stands among leaves."""

    def __repr__(self) -> str:
        return "a tensor"

    def __reduce__(self) -> str:
        return "PLACE"


PLACE = _Place()


def tensors_in(tree: Any) -> Tensors:
    """Return the tensors of a tree, in order."""
    # Without putting the tree together, which a class of its own, as that of packed sequences, may not like.
    return tuple(leaf for leaf in _leaves(tree) if isinstance(leaf, Tensor))


def shapes_of(tensors: Sequence[Tensor]) -> Shapes:
    """Return the shapes of tensors."""
    return tuple(tuple(x.shape) for x in tensors)


def shown(shapes: Shapes) -> str:
    """Return shapes as errors show them."""
    return " ".join(str(tuple(shape)) for shape in shapes)


def _leaves(tree: Any) -> Iterator[Any]:
    for leaf in pytree.tree_leaves(tree):
        if is_dataclass(leaf) and not isinstance(leaf, type):
            for field in fields(leaf):
                yield from _leaves(getattr(leaf, field.name))
        else:
            yield leaf


def mapped(function: Callable[[Tensor], Any], tree: Any) -> Any:
    """Return a tree with every tensor replaced by what a function makes of it."""
    return each_leaf(lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf, tree)


def each_leaf(function: Callable[[Any], Any], tree: Any) -> Any:
    """Return a tree with every leaf, tensor or not, replaced by what a function makes of it."""

    def at(leaf: Any) -> Any:
        if not is_dataclass(leaf) or isinstance(leaf, type):
            return function(leaf)
        # One that nobody has registered, which would else be taken for a constant with its tensors.
        own = copy.copy(leaf)
        for field in fields(leaf):
            object.__setattr__(own, field.name, each_leaf(function, getattr(leaf, field.name)))
        return own

    return pytree.tree_map(at, tree)


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
