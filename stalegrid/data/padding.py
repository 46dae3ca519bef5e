"""Batches of sequences, padded to one of a few lengths.

Does not know: data sets, what reads them, models.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from torch.utils import _pytree as pytree
from torch.utils.data import default_collate

from stalegrid.errors import ConfigError, DataError


@runtime_checkable
class OfFewShapes(Protocol):
    """A ``collate_fn`` that knows the shapes of all batches that it makes."""

    def of_each_shape(self, items: list[Any]) -> Iterator[Any]:
        """Yield a batch of each of them.

        Args:
            items: of which a batch may be made.
        """


@dataclass(frozen=True)
class Padding:
    """Makes a batch of a list of items; see :func:`pad_to`."""

    lengths: tuple[int, ...]
    value: Any

    def __call__(self, items: list[Any]) -> Any:
        """Return a batch.

        Args:
            items: trees that are alike but for the lengths of their sequences.

        Raises:
            DataError: a sequence is longer than all lengths, or items are not alike.
        """
        try:
            lengths = pytree.tree_map(_longest, self._values(items), *items)
        except ValueError as problem:
            raise DataError(
                f"items are not alike but for the lengths of tensors: {problem}; make every sequence a tensor, or "
                "name what pads each (value), and let all items have the same parts"
            ) from problem
        longest = max(pytree.tree_leaves(lengths), default=0)
        length = next((length for length in self.lengths if length >= longest), None)
        if length is None:
            raise DataError(
                f"a sequence is longer than all lengths to pad to (length: {longest}, lengths: "
                f"{', '.join(map(str, self.lengths))}); add a length, or cut the sequence"
            )
        return self._padded(items, length)

    def of_each_shape(self, items: list[Any]) -> Iterator[Any]:
        """Yield a batch of each length; what is longer is cut off."""
        return (self._padded(items, length) for length in self.lengths)

    def _padded(self, items: list[Any], length: int) -> Any:
        return pytree.tree_map(partial(_joined, length), self._values(items), *items)

    def _values(self, items: list[Any]) -> Any:
        """Return what pads each sequence, and None for what is stacked."""
        if isinstance(self.value, int | float):
            return pytree.tree_map(lambda leaf: self.value if _has_length(leaf) else None, items[0])
        return self.value


def _longest(value: float | None, *leaves: Any) -> int:
    return 0 if value is None else max(map(len, leaves))


def _joined(length: int, value: float | None, *leaves: Any) -> Tensor:
    if value is None:
        stacked: Tensor = default_collate(list(leaves))
        return stacked
    cut = [torch.as_tensor(leaf)[:length] for leaf in leaves]
    made = pad_sequence(cut, batch_first=True, padding_value=value)
    rest: Tensor = made.new_full((len(made), length - made.shape[1], *made.shape[2:]), value)
    return torch.cat([made, rest], dim=1)


def _has_length(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.ndim > 0


def pad_to(lengths: Sequence[int], value: Any = 0) -> Padding:
    """Return a ``collate_fn`` that pads all sequences of a batch to one of a few lengths, the least that they fit in.

    Args:
        lengths: of which batches have one each.
        value: that pads; or an item with a number in the place of each sequence and None for what is stacked, as in
            ``{"input_ids": 0, "labels": -100, "row": None}``.  A number pads every tensor along its first dimension.

    Returns:
        A function: list of items -> batch, sequences of shape (B, length, ...).

    Raises:
        ConfigError: there are no lengths, or one is smaller than 1.
    """
    if not lengths or min(lengths) < 1:
        raise ConfigError(f"there are no lengths to pad to (lengths: {list(lengths)}); name some, of 1 or more")
    return Padding(tuple(sorted(set(lengths))), value)
