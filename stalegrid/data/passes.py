"""The samples of data that can only be gone through, pass after pass.

Does not know: batches, groups, what samples consist of.

Before each sample is asked for, the global generators of torch, NumPy and Python are set by (seed, pass, number of the
sample in its pass), so that a stream which draws from them is the same whenever it is gone through, and whoever draws
between two samples.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from stalegrid.errors import DataError
from stalegrid.seeds import kept, key

CPU = torch.device("cpu")


def is_stream(dataset: object) -> bool:
    """Return whether a data set has no samples by index, but can be gone through."""
    indexed = hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")
    # A loader goes through batches, not through samples.
    passable = hasattr(dataset, "__iter__") and not isinstance(dataset, DataLoader)
    return passable and (isinstance(dataset, IterableDataset) or not indexed)


def length_of(dataset: Any) -> int | None:
    """Return how many samples a stream says that a pass has; None if it does not say."""
    try:
        return len(dataset)
    except (TypeError, NotImplementedError):  # some have the method to say that they have none
        return None


class Passes:
    """Goes through a stream from the beginning, once more whenever it ends.

    A stream that has ``set_epoch`` is told the number of each pass, from 0, before the pass begins.

    Args:
        dataset: what has ``__iter__``.
        seed: keys the draws.
    """

    def __init__(self, dataset: Dataset[Any], seed: int) -> None:
        self._dataset = dataset
        self._seed = seed
        self._begin(0)

    def take(self, number: int) -> list[Any]:
        """Return the next samples, all of one pass; the rest of a pass that is less than that is dropped.

        Args:
            number: how many, at least 1.

        Raises:
            DataError: a sample cannot be read, or a pass has not so many.
        """
        with kept(CPU):  # once: to put the generators back takes longer than to read a small sample
            found = self._next(number)
            if len(found) < number:
                ended = self._index
                self._begin(self._pass + 1)
                found = self._next(number)
                if len(found) < number:
                    raise DataError(self._too_short(number, ended))
            return found

    def first(self, number: int) -> list[Any]:
        """Return the next samples of this pass, fewer where it has no more."""
        with kept(CPU):
            return self._next(number)

    def _begin(self, number: int) -> None:
        self._pass, self._index = number, 0
        with kept(CPU):
            try:
                key(CPU, self._seed, "pass", number)
                if hasattr(self._dataset, "set_epoch"):
                    self._dataset.set_epoch(number)
                self._samples: Iterator[Any] = iter(self._dataset)
            except Exception as problem:  # the data set is the user's: anything can be raised
                raise DataError(
                    f"the stream cannot be gone through (pass: {number}): {type(problem).__name__}: {problem}"
                ) from problem

    def _next(self, number: int) -> list[Any]:
        found: list[Any] = []
        while len(found) < number:
            try:
                key(CPU, self._seed, "sample", self._pass, self._index)
                found.append(next(self._samples))
            except StopIteration:
                break
            except Exception as problem:  # likewise
                where = f"(sample: {self._index}, pass: {self._pass})"
                raise DataError(f"a sample cannot be read {where}: {type(problem).__name__}: {problem}") from problem
            self._index += 1
        return found

    def _too_short(self, number: int, ended: int) -> str:
        if ended < number:
            return (
                f"the stream has not as many samples as the groups take in one update (samples: {ended}, an update "
                f"takes: {number}); take smaller batches or fewer groups"
            )
        return (
            f"the stream has ended and does not begin anew (samples of pass {self._pass - 1}: {ended}, of pass "
            f"{self._pass}: {self._index}, an update takes: {number}); let __iter__ begin with the first sample every "
            "time, or make fewer updates"
        )
