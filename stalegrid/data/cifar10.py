"""CIFAR-10 from its official files, binary or pickled.

Does not know: training, augmentation, downloads.

Source: https://www.cs.toronto.edu/~kriz/cifar.html describes both layouts.
"""

import io
import pickle
import pickletools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stalegrid.data.arrays import ArrayDataset, Normalise, check_labels
from stalegrid.errors import DataError
from stalegrid.written import MEBIBYTE, is_file, is_folder, read_bytes

CLASSES = 10
ROWS = 10_000
"""Images in each file."""
PIXELS = 3 * 32 * 32
LARGEST = 64 * MEBIBYTE
"""Bytes of a file; the official ones are half as large."""
NESTED = 24
"""Containers that a pickle makes, and so the depth to which they nest; the official files make 12."""
NORMALISE = Normalise(mean=(0.4914, 0.4822, 0.4465), std=(0.2470, 0.2435, 0.2616))
"""Of the 50,000 training images."""

Reader = Callable[[Path], tuple[Tensor, Tensor]]


def load_cifar10(folder: Path, train: bool) -> ArrayDataset:
    """Load CIFAR-10.

    Args:
        folder: holds ``cifar-10-batches-bin`` or ``cifar-10-batches-py``, or is one of them.
        train: the 50,000 training images, else the 10,000 test images.

    Returns:
        uint8 images (N, 3, 32, 32) with their labels, normalised when fetched.

    Raises:
        DataError: the folder or a file is missing, or a file is truncated or holds what it should not.
    """
    paths, read = _find(folder, train)
    images, labels = zip(*map(read, paths), strict=True)
    return ArrayDataset(torch.cat(images).view(-1, 3, 32, 32), torch.cat(labels), CLASSES, NORMALISE)


def _find(folder: Path, train: bool) -> tuple[list[Path], Reader]:
    """Return the files of the first complete layout and how to read one of them."""
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder; it should hold cifar-10-batches-bin or cifar-10-batches-py")
    stems = [f"data_batch_{number}" for number in range(1, 6)] if train else ["test_batch"]
    binary = [f"{stem}.bin" for stem in stems]
    candidates: list[tuple[Path, list[str], Reader]] = [
        (folder / "cifar-10-batches-bin", binary, _read_binary),
        (folder / "cifar-10-batches-py", stems, _read_pickled),
        (folder, binary, _read_binary),
        (folder, stems, _read_pickled),
    ]
    looked = []
    for place, names, read in candidates:
        missing = [name for name in names if not is_file(place / name)]
        if not missing:
            return [place / name for name in names], read
        looked.append(f"{place} lacks {', '.join(missing)}")
    raise DataError("CIFAR-10 is incomplete: " + "; ".join(looked))


def _read_binary(path: Path) -> tuple[Tensor, Tensor]:
    """Read rows of one label byte and the pixels: uint8 (ROWS, PIXELS) and int64 (ROWS,)."""
    content, expected = bytearray(read_bytes(path, LARGEST)), ROWS * (1 + PIXELS)
    if len(content) != expected:
        raise DataError(f"{path}: found {len(content)} bytes, expected {expected}")
    rows = torch.frombuffer(content, dtype=torch.uint8).view(ROWS, 1 + PIXELS)
    labels = rows[:, 0].long()
    check_labels(labels.tolist(), CLASSES, str(path))
    return rows[:, 1:], labels


def _read_pickled(path: Path) -> tuple[Tensor, Tensor]:
    """Read a pickled dict of an array and a list: uint8 (ROWS, PIXELS) and int64 (ROWS,)."""
    content = _unpickle(path)
    if not isinstance(content, dict) or not {b"data", b"labels"} <= content.keys():
        raise DataError(f"{path}: expected a dict with the keys b'data' and b'labels'")
    labels = content[b"labels"]
    if not isinstance(labels, list) or len(labels) != ROWS or not all(type(label) is int for label in labels):
        raise DataError(f"{path}: b'labels' is not a list of {ROWS} whole numbers")
    check_labels(labels, CLASSES, str(path))
    return torch.from_numpy(_pixels(content[b"data"], path)), torch.tensor(labels)


class _Record:
    """What a pickle wanted to make with NumPy: the arguments and the state it gave, never acted on."""

    arguments: tuple[object, ...] = ()
    state: object = None

    def __init__(self, *arguments: object) -> None:
        self.arguments = arguments

    def __setstate__(self, state: object) -> None:
        self.state = state


class _InertUnpickler(pickle.Unpickler):
    """Reads plain Python values and keeps NumPy's calls as records.

    A pickle is a program, and even ``numpy.dtype`` called with hostile state can corrupt memory; so nothing
    that a file names is ever imported or called.
    """

    allowed = frozenset(
        {
            "numpy.core.multiarray._reconstruct",
            "numpy._core.multiarray._reconstruct",
            "numpy.ndarray",
            "numpy.dtype",
        }
    )

    def find_class(self, module: str, name: str) -> type[_Record]:
        """Return the harmless stand-in for an allowed global; DataError for any other."""
        if f"{module}.{name}" not in self.allowed:
            raise DataError(f"refused to load {module}.{name}, which no CIFAR-10 file needs")
        return _Record


def _unpickle(path: Path) -> object:
    content = read_bytes(path, LARGEST)
    try:
        _check_plain(content)
        found: object = _InertUnpickler(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    except Exception as error:  # a broken pickle may raise almost anything
        raise DataError(f"{path}: {len(content)} bytes that are a truncated or broken pickle ({error!r})") from error
    return found


def _check_plain(content: bytes) -> None:
    """Refuse a pickle that would exhaust the machine: one that nests, or notes values under huge numbers.

    Raises:
        DataError: it is no such simple pickle as CIFAR-10's files are.
    """
    made = 0
    for code, argument, _ in pickletools.genops(content):
        # How many are made bounds how deep they nest, which would exhaust the stack.
        made += any(after in _CONTAINERS for after in code.stack_after)
        # Python keeps such notes in an array as long as the largest number.
        noted = argument if code.name in ("PUT", "BINPUT", "LONG_BINPUT") else 0
        if made > NESTED or not isinstance(noted, int) or noted > len(content):
            raise DataError(f"a pickle that is not as simple as a CIFAR-10 file (containers: {made}, number: {noted})")


_CONTAINERS = (pickletools.pytuple, pickletools.pylist, pickletools.pydict, pickletools.pyset, pickletools.pyfrozenset)


def _pixels(record: object, path: Path) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Rebuild the array uint8 (ROWS, PIXELS) from the state that NumPy would have been given."""
    match record:
        case _Record(state=(_, shape, _Record(arguments=("u1" | b"u1", *_)), int() as fortran, bytes() as raw)):
            pass
        case _:
            raise DataError(f"{path}: b'data' is not an array of uint8")
    if shape != (ROWS, PIXELS):
        raise DataError(f"{path}: b'data' has the shape {shape!r}, expected {(ROWS, PIXELS)}")
    if len(raw) != ROWS * PIXELS:
        raise DataError(f"{path}: b'data' holds {len(raw)} bytes, expected {ROWS * PIXELS}")
    flat = np.frombuffer(raw, dtype=np.uint8)
    # A copy, since nobody may write to what is made of bytes, and torch wants to.
    return np.array(flat.reshape((ROWS, PIXELS), order="F" if fortran else "C"), order="C")
