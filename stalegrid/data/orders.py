"""In which order samples are visited, epoch by epoch.

Does not know: what a sample is, batches, groups.

An order is a pure function of (seed, epoch), so that processes that never talk visit the same samples.  The global
generators of torch, NumPy and Python are set for each epoch before a sampler is asked, so one that draws from them is
such a function; one that draws from a generator of its own is found out by being asked twice.
"""

import operator
from collections.abc import Iterable, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor

from stalegrid.errors import DataError
from stalegrid.seeds import drawing, generator

ENDLESS = 100
"""As often as this all samples may come in one epoch of a sampler without a length."""


class Order(Protocol):
    """Says which samples come after which."""

    def indices(self, samples: int, seed: int, epoch: int) -> Tensor:
        """Return the samples of an epoch in their order, int64 (N,).

        Args:
            samples: size of the data set.
            seed: of the run.
            epoch: from 0.
        """


class InOrder:
    """From first to last, in every epoch."""

    def indices(self, samples: int, seed: int, epoch: int) -> Tensor:
        """Return all samples; see :class:`Order`."""
        return torch.arange(samples)


class Shuffled:
    """All samples, drawn anew for every epoch."""

    def indices(self, samples: int, seed: int, epoch: int) -> Tensor:
        """Return a permutation; see :class:`Order`."""
        return torch.randperm(samples, generator=generator(seed, "order", epoch))


@dataclass(frozen=True)
class Sampled:
    """As a sampler of the user's own says, if it says the same whenever it is asked.

    Args:
        sampler: yields indices, or lists of them; told of the epoch where it, or a sampler inside, has ``set_epoch``.
        batch_size: of the lists that it yields; None where it yields indices.
    """

    sampler: Iterable[Any]
    batch_size: int | None = None

    def indices(self, samples: int, seed: int, epoch: int) -> Tensor:
        """Return what the sampler yields; see :class:`Order`.

        Raises:
            DataError: it yields something else when it is asked again, no indices, or has no end.
        """
        found = self._asked(samples, seed, epoch)
        if self._asked(samples, seed, epoch) != found:
            raise DataError(
                f"the {self._name} gives another order when it is asked again (epoch: {epoch}), and stages and "
                "processes ask by themselves; let it draw from the global generator of torch, which is set for every "
                "epoch, or seed a generator by the number that set_epoch is given"
            )
        return torch.tensor(found, dtype=torch.int64)

    @property
    def _name(self) -> str:
        return type(self.sampler).__name__

    def _asked(self, samples: int, seed: int, epoch: int) -> list[int]:
        with drawing(torch.device("cpu"), seed, "order", epoch):
            parts: tuple[Any, ...] = (self.sampler, getattr(self.sampler, "sampler", None))
            for part in parts:
                if hasattr(part, "set_epoch"):
                    part.set_epoch(epoch)
            limit = len(self.sampler) if isinstance(self.sampler, Sized) else ENDLESS * samples
            found = list(islice(self.sampler, limit + 1))
        if len(found) > limit:
            raise DataError(
                f"the {self._name} gives more than it says that it has, or has no end (len: {limit}, epoch: {epoch}); "
                "give it a __len__ that is right"
            )
        flat = found if self.batch_size is None else self._joined(found, epoch)
        return [self._index(value, samples, epoch) for value in flat]

    def _index(self, value: Any, samples: int, epoch: int) -> int:
        try:
            found = operator.index(value)  # of numbers of NumPy and torch too
        except TypeError:
            found = -1
        if not 0 <= found < samples:
            raise DataError(
                f"the {self._name} gives what is no index of a sample (it is: {value!r}, samples: {samples}, epoch: "
                f"{epoch}); let it give whole numbers from 0 on"
            )
        return found

    def _joined(self, batches: list[Any], epoch: int) -> list[Any]:
        """Return the indices of all batches, of which the last may be smaller."""
        odd = next((batch for batch in batches[:-1] if len(batch) != self.batch_size), None)
        if odd is not None:
            raise DataError(
                f"the {self._name} gives batches of several sizes (sizes: {self.batch_size} and {len(odd)}, epoch: "
                f"{epoch}); let all but the last have the same"
            )
        return [index for batch in batches for index in batch]
