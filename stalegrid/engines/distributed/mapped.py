"""What lies in a file that is mapped into memory travels by the file's path, and is mapped again where it arrives.

Does not know: what it is a part of, how the rest travels.

Where memory comes from is asked of the system, not of objects: a slice of an ``np.memmap`` knows its file but not its
place in it, and a tensor made of one knows neither.  Only what is shared with the file counts: in a private map, such
as of mode ``c``, values may be others than in the file.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
import torch

LEAST = 1 << 16
"""Bytes that are not rather copied."""

Reduced = tuple[Callable[..., Any], tuple[Any, ...]]
"""How an object is made again, as :mod:`pickle` has it."""


class Place(NamedTuple):
    """Where bytes lie.

    Args:
        path: of the file.
        offset: of the first byte in it.
        writable: whether the map is.
    """

    path: str
    offset: int
    writable: bool


def by_path(obj: Any) -> Reduced | None:
    """Return how an array or the memory of a tensor is mapped again; None where it is not mapped from a file."""
    if isinstance(obj, np.ndarray) and type(obj) in (np.ndarray, np.memmap) and obj.nbytes >= LEAST:
        return None if obj.dtype.hasobject else _array(obj)
    if isinstance(obj, torch.storage.TypedStorage):
        memory = obj._untyped_storage
        if memory.device.type == "cpu" and memory.nbytes() >= LEAST:
            place = _found(memory.data_ptr(), memory.nbytes())
            return place and (_storage_of, (place, memory.nbytes(), obj.dtype))
    return None


def _array(array: np.ndarray[Any, Any]) -> Reduced | None:
    reach = [(length - 1) * stride for length, stride in zip(array.shape, array.strides, strict=True)]
    before = -sum(min(0, step) for step in reach)  # of an array that goes backwards, not 0
    size = before + sum(max(0, step) for step in reach) + array.itemsize
    place = _found(array.ctypes.data - before, size)
    return place and (_array_of, (place, size, type(array), array.shape, array.dtype, before, array.strides))


def _found(address: int, size: int) -> Place | None:
    """Return the file that memory is shared with, if there is one and it still has its name."""
    with suppress(OSError), open("/proc/self/maps") as maps:
        for line in maps:
            span, access, offset, _, inode, *path = line.split(maxsplit=5)
            start, stop = (int(end, 16) for end in span.split("-"))
            if start <= address < stop:
                if address + size > stop or access[3] != "s" or not path:
                    return None
                name = path[0].rstrip("\n")
                now = os.stat(name)
                same = now.st_ino == int(inode)
                return Place(name, int(offset, 16) + address - start, access[1] == "w") if same else None
    return None


def _bytes_of(place: Place, size: int, mode: str) -> np.memmap[Any, Any]:
    return np.memmap(place.path, np.uint8, mode, place.offset, (size,))  # type: ignore[call-overload,no-any-return]


def _array_of(
    place: Place, size: int, kind: type[Any], shape: tuple[int, ...], dtype: Any, start: int, strides: tuple[int, ...]
) -> Any:
    content = _bytes_of(place, size, "r+" if place.writable else "r")
    return np.ndarray(shape, dtype, content, start, strides).view(kind)


def _storage_of(place: Place, size: int, dtype: torch.dtype) -> torch.storage.TypedStorage:
    # Privately where the file is not to be written, since torch does not know of memory that cannot be.
    memory = torch.from_numpy(_bytes_of(place, size, "r+" if place.writable else "c")).untyped_storage()
    return torch.storage.TypedStorage(wrap_storage=memory, dtype=dtype, _internal=True)  # type: ignore[no-untyped-call]
