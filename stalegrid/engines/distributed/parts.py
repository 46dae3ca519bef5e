"""A value in parts: what :class:`~stalegrid.data.Later` stands for in it is read where somebody asks for it.

Does not know: what the value is, who asks.

Each part is a pickle of its own.  What it shares with the value, such as a transform, a list or the memory of a tensor,
is in the value's, and what it shares with other parts in one that is read before any of them; parts refer to it.  So
what is one object where the value is written is one where it is read, as in a single pickle.  To know what is shared,
parts are gone through once before they are written.
"""

import gc
import mmap
import os
import pickle
import weakref
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import IO, Any

import torch
from torch import Tensor

from stalegrid.data import Later, inside
from stalegrid.engines.distributed.packing import Packer

Memo = dict[int, tuple[int, Any]]
"""What a pickle has, by identity: its number there, and the object itself, which keeps its identity as it lives on."""

_PLACE = 8  # bytes in the end that say where the index begins


@dataclass(frozen=True)
class Index:
    """Where in a file what is.

    Args:
        common: bytes before what several parts share.
        parts: bytes before each part.
        early: numbers of the parts that the value holds too, or whose data set it holds.
    """

    common: int
    parts: list[int]
    early: list[int]


class Shelf:
    """Where the parts of a value that was read are."""

    def __init__(self) -> None:
        self._laters: list[Later] = []
        self._whole = False  # whether what parts share with each other was read

    def later(self) -> Later:
        """Return what stands for the next part."""
        made = Later(partial(self._part, len(self._laters)))
        self._laters.append(made)
        return made

    def placed(self, file: int, index: Index, shared: list[Any]) -> None:
        """Know from now on where parts are.

        Args:
            file: an open one, which is closed when nobody can ask for a part any more.
            index: of it.
            shared: what parts share with the value.
        """
        os.set_inheritable(file, False)  # programs that a data set starts have no use for it
        weakref.finalize(self, os.close, file)
        self._file, self._index, self._shared = file, index, shared
        for number in index.early:
            self._laters[number].get()
        self._laters.clear()  # so that who has none any more closes the file

    def _part(self, number: int) -> Any:
        if not self._whole:
            self._shared, self._whole = [*self._shared, *self._read(self._index.common)], True
        return self._read(self._index.parts[number])

    def _read(self, start: int) -> Any:
        # A map for each: what was read counts as memory of this process as long as it is mapped.
        with mmap.mmap(self._file, 0, access=mmap.ACCESS_READ) as content:
            content.seek(start)
            return _Referred(content, self._shared).load()


def write(value: Any, file: IO[bytes]) -> None:
    """Write a value, and apart from it what is read later.

    Args:
        value: that can be pickled.
        file: to the end of which it is written.
    """
    packer = _Value(file)
    packer.dump((packer.shelf, value))
    parts = [later.get() for later in packer.laters]
    with _uncollected():
        memo = packer.memo.copy()
        early = [number for number, part in enumerate(parts) if any(id(one) in memo for one in inside(part))]
        shared, common = _shared(memo, [_looked_at(part, packer) for part in parts])
    packer.dump(shared)
    starts = []
    for part, known in [(common, shared), *((part, [*shared, *common]) for part in parts)]:
        starts.append(file.tell())
        _dump(part, file, packer, known)
    place = file.tell()
    pickle.dump(Index(starts[0], starts[1:], early), file)
    file.write(place.to_bytes(_PLACE, "little"))


def read(content: mmap.mmap, file: int) -> Any:
    """Read a value.

    Args:
        content: of the file, from where it was written.
        file: the same, from which parts are read later; closed in the end.
    """
    unpickler = pickle.Unpickler(content)
    shelf, value = unpickler.load()
    shared = unpickler.load()
    content.seek(-_PLACE, os.SEEK_END)
    content.seek(int.from_bytes(content.read(_PLACE), "little"))
    shelf.placed(file, pickle.load(content), shared)
    return value


class _Value(Packer):
    """Writes a value without its parts."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.shelf = Shelf()
        self.laters: list[Later] = []

    def reducer_override(self, obj: Any) -> Any:
        """Write an object; see :class:`~stalegrid.engines.distributed.packing.Packer`."""
        if isinstance(obj, Later):
            self.laters.append(obj)
            return Shelf.later, (self.shelf,)
        return super().reducer_override(obj)


def _dump(part: Any, file: IO[bytes], beside: Packer, known: Sequence[Any]) -> None:
    """Write a part that refers to what its readers have.

    Args:
        part: that is written.
        file: to which.
        beside: what wrote the value.
        known: what readers have.
    """
    # As if it had been written in this pickle before; to be asked of each object, as persistent_id is, takes longer
    # than to write it.
    file.write(pickle.PROTO + bytes([pickle.HIGHEST_PROTOCOL]))
    for number in range(len(known)):
        file.write(pickle.BININT + number.to_bytes(4, "little") + pickle.BINPERSID + pickle.MEMOIZE + pickle.POP)
    file.write(pickle.NONE + pickle.STOP)
    packer = Packer(file, beside)
    packer.memo = {id(one): (number, one) for number, one in enumerate(known)}
    packer.dump(part)


class _Referred(pickle.Unpickler):
    """Reads a part.

    Args:
        content: from where it begins.
        known: what it refers to.
    """

    def __init__(self, content: mmap.mmap, known: Sequence[Any]) -> None:
        super().__init__(content)
        self._known = known
        self.load()  # what it refers to, by which it goes on

    def persistent_load(self, number: int) -> Any:
        """Return what is at a place; see :class:`pickle.Unpickler`."""
        return self._known[number]


class _Looking(Packer):
    """Goes through a part and writes nothing."""

    def __init__(self, beside: Packer) -> None:
        super().__init__(self, beside)  # no more of a file is needed

    def write(self, data: Any) -> None:
        """Write nothing."""

    def reducer_override(self, obj: Any) -> Any:
        """Look at an object, but not at the bytes of a tensor."""
        if _is_plain(obj):
            return object, (), self._first_of(obj._typed_storage())
        found = super().reducer_override(obj)
        return (object, ()) if found is NotImplemented and isinstance(obj, torch.storage.TypedStorage) else found


@contextmanager
def _uncollected() -> Iterator[None]:
    """Let no garbage be collected: a memo is of as many pairs as there are objects, over which that takes longest."""
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.enable()


def _is_plain(obj: Any) -> bool:
    """Return whether an object is a tensor that has nothing but its memory in it."""
    if type(obj) is not Tensor or obj.device.type != "cpu" or obj.layout is not torch.strided:
        return False
    return not vars(obj) and obj._backward_hooks is None


def _looked_at(part: Any, beside: Packer) -> Memo:
    """Return all that a part has in it."""
    packer = _Looking(beside)
    packer.dump(part)
    found: Memo = packer.memo.copy()
    return found


def _shared(memo: Memo, parts: Sequence[Memo]) -> tuple[list[Any], list[Any]]:
    """Return what parts share with a value, and what they share with each other that the value has not."""
    shared: dict[int, Any] = {}
    common: dict[int, Any] = {}
    for number, part in enumerate(parts):
        shared.update((one, memo[one][1]) for one in part.keys() & memo.keys())
        for other in parts[:number]:
            twice = sorted((other[one][0], one) for one in part.keys() & other.keys() if one not in memo)
            common.update((one, part[one][1]) for _, one in twice)
    return list(shared.values()), list(common.values())
