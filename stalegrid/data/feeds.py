"""The batches that the units of one process train on: each read once, and read ahead where there are workers.

Does not know: which units there are, what they do with a batch.

A unit asks for the batches of its group one after another, so what comes next is known before it is asked for.  What a
batch is does not depend on who reads it, so no number depends on how many read.
"""

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor

from stalegrid.data.ahead import Ahead
from stalegrid.data.batches import Batches
from stalegrid.data.numbers import Counted, Numbers
from stalegrid.data.owned import Owned
from stalegrid.data.sources import Batch, ItemSource
from stalegrid.data.streams import Stream
from stalegrid.errors import ProtocolError
from stalegrid.objects import Form, Tensors


@dataclass(frozen=True)
class Readers:
    """What is asked of processes that read ahead.

    Args:
        stack: where they end.
        patience: seconds that one may take for a sample; None for as many as it likes.
    """

    stack: ExitStack
    patience: float | None = None


def feed(
    batches: Batches | Stream,
    takers: Mapping[int, Sequence[int]],
    number: int,
    workers: int | None,
    readers: Readers | None,
) -> "Batches | Stream | Feed":
    """Return the batches of the groups that live in this process.

    Args:
        batches: of all groups.
        takers: by group, the first batch that each asks for who asks here; who wants inputs and who wants targets are
            two.
        number: of batches that each group asks for, at most.
        workers: processes that read ahead for each group; None for as many as a loader names.
        readers: what is asked of these processes; None if there shall be none.
    """
    if isinstance(batches, Stream):  # which keeps what is due by itself
        batches.begin(min((start for starts in takers.values() for start in starts), default=0))
        return batches
    source = batches.items
    if source is None:  # whose batches are made of tensors in memory, in less time than they could be handed over
        return batches
    if readers is None:
        return Feed(batches, source, takers, number, 0)
    workers = batches.workers if workers is None else workers
    made = Feed(batches, source, takers, number, workers, readers.patience)
    readers.stack.callback(made.close)
    return made


class Unread:
    """What takes the place of batches that nobody here reads: which samples they are made of, at most.

    Args:
        numbers: of the samples; None for who does not ask for them either.
    """

    def __init__(self, numbers: Numbers | Owned | Counted | None) -> None:
        self._numbers = numbers

    @property
    def form(self) -> Form:
        """Nobody asks for it."""
        raise _unread()

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples make up a batch; see :class:`~stalegrid.data.Batches`."""
        if self._numbers is None:
            raise _unread()
        return self._numbers.indices(group, batch)

    def inputs(self, group: int, batch: int) -> Tensors:
        """Nobody asks for them."""
        raise _unread()

    def targets(self, group: int, batch: int) -> Any:
        """Nobody asks for them."""
        raise _unread()

    def checksum(self, group: int, batch: int) -> int:
        """Nobody asks for it."""
        raise _unread()


def _unread() -> ProtocolError:
    return ProtocolError("a batch is asked for where nobody was to read one; this is an error of the library")


class Feed:
    """Batches of which each is read once, and kept until all who want it have it; see :func:`feed`."""

    def __init__(
        self,
        batches: Batches,
        source: ItemSource,
        takers: Mapping[int, Sequence[int]],
        number: int,
        workers: int,
        patience: float | None = None,
    ) -> None:
        self._batches = batches
        self._source = source
        self._takers = takers
        ahead, starts = partial(self._read, patience=patience), takers.items() if workers else ()
        self._ahead = {g: Ahead(partial(ahead, g), number, workers, min(firsts)) for g, firsts in starts}
        self._kept: dict[tuple[int, int], tuple[Batch, int]] = {}
        self._last: Batch | None = None

    @property
    def form(self) -> Form:
        """How the arguments of the model, (args, kwargs), are made of the inputs of any batch."""
        return self._batches.form

    def indices(self, group: int, batch: int) -> Tensor:
        """Return which samples make up a batch; see :class:`~stalegrid.data.Batches`."""
        return self._batches.indices(group, batch)

    def inputs(self, group: int, batch: int) -> Tensors:
        """Return the tensors of the model's arguments; see :class:`~stalegrid.data.Batches`."""
        return self._taken(group, batch).inputs()

    def targets(self, group: int, batch: int) -> Any:
        """Return what the loss gets beside outputs; see :class:`~stalegrid.data.Batches`."""
        return self._taken(group, batch).targets()

    def checksum(self, group: int, batch: int) -> int:
        """Return 32 bits of what was just taken of a batch."""
        assert self._last is not None
        return self._last.checksum()

    def close(self) -> None:
        """End the processes that read ahead."""
        for ahead in self._ahead.values():
            ahead.close()

    def _taken(self, group: int, batch: int) -> Batch:
        """Return a batch for one who wants it."""
        if (group, batch) not in self._kept:
            self._get(group, batch)
        found, wanted = self._kept.pop((group, batch))
        if wanted > 1:
            self._kept[group, batch] = found, wanted - 1
        self._last = found
        return found

    def _get(self, group: int, batch: int) -> None:
        """Read a batch, and where others read ahead, those before it that nobody has asked for yet."""
        ahead = self._ahead.get(group)
        # Who begins later, in a run that goes on, may ask first.
        for number in [batch] if ahead is None else range(ahead.due, batch + 1):
            tensors = self._read(group, number) if ahead is None else ahead.next(number)
            wanted = sum(number >= start for start in self._takers.get(group, ()))
            self._kept[group, number] = self._source.batch(tensors), wanted

    def _read(self, group: int, batch: int, patience: float | None = None) -> Tensors:
        return self._source.read(self._batches.epoch(group, batch), self._batches.indices(group, batch), patience)
