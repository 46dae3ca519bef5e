"""A data set that is opened where somebody reads it, and nowhere else.

Does not know: who reads it, where it comes from.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch.utils.data import Dataset

from stalegrid.seeds import drawing

T = TypeVar("T", Dataset[Any], Dataset[Any] | None)


class Later(Dataset[Any]):
    """Stands in the place of a data set until somebody asks for it; see :func:`opened`.

    It has no samples of its own, so that whoever takes it for the data set is told.

    Args:
        make: returns the data set, the same whenever it is called.
        made: the data set, where it is there already.
    """

    def __init__(self, make: Callable[[], Dataset[Any]], made: Dataset[Any] | None = None) -> None:
        self._make = make
        self._made = made

    @classmethod
    def of(cls, data: Dataset[Any]) -> "Later":
        """Return what stands in the place of a data set that is there; itself, if it does so already."""
        return data if isinstance(data, Later) else cls(lambda: data, data)

    @property
    def there(self) -> Dataset[Any] | None:
        """The data set, where it is open."""
        return self._made

    def get(self) -> Dataset[Any]:
        """Return the data set, which is opened if it is not yet."""
        if self._made is None:
            # Whoever opens it first, and whenever, it draws the same, and nobody else draws otherwise for it.
            with drawing(torch.device("cpu"), 0, "open"):
                self._made = self._make()
        return self._made

    def let_go(self) -> None:
        """Forget the data set, which those who read it have; it is opened once more for who asks again."""
        self._made = None

    def __reduce__(self) -> tuple[Any, ...]:
        return Later.of, (self.get(),)


def opened(data: T) -> T:
    """Return a data set, or the one that something stands in the place of; None for none."""
    return data.get() if isinstance(data, Later) else data


def inside(data: Dataset[Any] | None) -> list[object]:
    """Return the objects that others may share with a data set: itself, and what it reads; none where it is not open.

    Args:
        data: a data set, what stands in its place, or None.
    """
    found = data.there if isinstance(data, Later) else data
    return [one for one in (found, getattr(found, "dataset", None)) if one is not None]
