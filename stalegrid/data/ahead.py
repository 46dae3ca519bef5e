"""Batches that other processes read before they are asked for.

Does not know: what is in a batch, groups, who asks.

The processes are those of torch's ``DataLoader``, a batch each at a time.  They are forked from the process that asks,
with the data set as it is there: nothing of it has to be pickled.  Each ends with that process, however it ends.
"""

import ctypes
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stalegrid.errors import DataError
from stalegrid.objects import Tensors

_PR_SET_PDEATHSIG = 1  # as <linux/prctl.h> numbers it


class Ahead:
    """Reads batches one after another in worker processes, which begin when the first is asked for.

    Args:
        read: number of a batch -> its tensors; a pure function.
        number: of batches, at most.
        workers: how many processes.
        start: the first batch.

    Attributes:
        due: the batch that comes next.
    """

    def __init__(self, read: Callable[[int], Tensors], number: int, workers: int, start: int = 0) -> None:
        self.due = start
        self._read = read
        self._number = number
        self._workers = workers
        self._iterator: Iterator[tuple[int, Tensors | str]] | None = None

    def next(self, batch: int) -> Tensors:
        """Return the next batch.

        Args:
            batch: its number.

        Raises:
            DataError: it cannot be read, or who reads it is gone.
        """
        if self._iterator is None:
            self._iterator = self._begin()
        try:
            number, found = next(self._iterator)
        except RuntimeError as problem:  # torch's word for a worker that has ended
            raise DataError(f"a process that reads samples ahead has ended (batch: {batch}): {problem}") from problem
        assert number == batch, "batches are asked for one after another"
        self.due = number + 1
        if isinstance(found, str):
            raise DataError(found)
        return found

    def close(self) -> None:
        """End the processes."""
        self._iterator = None

    def _begin(self) -> Iterator[tuple[int, Tensors | str]]:
        with warnings.catch_warnings():
            # Of more workers than processors, which may wait for files; and of forking a process that has threads, as
            # loaders do: whoever forks here holds no lock of Python's.
            warnings.simplefilter("ignore")
            loader = DataLoader(
                _Numbered(self._read),
                batch_size=None,
                sampler=range(self.due, self._number),
                num_workers=self._workers,
                collate_fn=_same,
                worker_init_fn=partial(_end_with, os.getpid()),
                multiprocessing_context="fork",
                generator=torch.Generator(),  # else it would draw from the global one, as the unit that asks does
            )
            return iter(loader)


class _Numbered(Dataset[tuple[int, Tensors | str]]):
    """Batches by number, or why one cannot be read."""

    def __init__(self, read: Callable[[int], Tensors]) -> None:
        self._read = read

    def __getitem__(self, number: int) -> tuple[int, Tensors | str]:
        try:
            return number, tuple(map(_portable, self._read(number)))
        except DataError as problem:  # as text, which is handed on as it is
            return number, str(problem)


def _portable(values: Tensor) -> Tensor:
    """Return a tensor that shares no more memory than its own with the process that asks.

    Raises:
        DataError: another process cannot be given it.
    """
    if type(values) is not Tensor or (values.requires_grad and not values.is_leaf):
        raise DataError(
            f"a batch has a tensor that cannot be handed to another process (it is: {type(values).__name__}, "
            f"requires_grad: {values.requires_grad}); detach it, make it a plain one, or read without workers"
        )
    whole = values.layout is not torch.strided or values.untyped_storage().nbytes() <= values.nbytes
    return values if whole else values.clone()


def _same(found: Any) -> Any:
    return found


def _end_with(parent: int, worker: int) -> None:
    """Let the system end this process as soon as its parent has ended, which may be killed and close nothing."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # before that call
        os._exit(1)
