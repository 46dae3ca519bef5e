"""MNIST from its four official IDX files, raw or compressed.

Does not know: training, downloads.

Source: LeCun, Cortes and Burges, The MNIST database; an IDX file is a big-endian header (two zero bytes, 8
for uint8, the number of dimensions, then each dimension in 4 bytes) and the values.
"""

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO

import torch
from torch import Tensor

from stalegrid.data.arrays import ArrayDataset, Normalise, check_labels
from stalegrid.errors import DataError
from stalegrid.written import MEBIBYTE, is_file, is_folder

CLASSES = 10
LARGEST = 1024 * MEBIBYTE
"""Bytes of a file, decompressed: what a small one says of itself may be no limit."""
NORMALISE = Normalise(mean=(0.1307,), std=(0.3081,))
"""Of the 60,000 training images."""


def load_mnist(folder: Path, train: bool) -> ArrayDataset:
    """Load MNIST, or any data set in its layout.

    Args:
        folder: holds the IDX files, or ``MNIST/raw`` or ``raw`` that holds them.
        train: the training images, else the test images.

    Returns:
        uint8 images (N, 1, 28, 28) with their labels, normalised when fetched.

    Raises:
        DataError: the folder or a file is missing, or a file is truncated or holds what it should not.
    """
    if not is_folder(folder):
        raise DataError(f"{folder}: no such folder; it should hold MNIST's IDX files")
    stem = "train" if train else "t10k"
    image_path = _find(folder, f"{stem}-images-idx3-ubyte")
    label_path = _find(folder, f"{stem}-labels-idx1-ubyte")
    images, labels = _read(image_path, 3), _read(label_path, 1)
    if images.shape[1:] != (28, 28):
        raise DataError(f"{image_path}: images of {tuple(images.shape[1:])} pixels, expected (28, 28)")
    if len(images) != len(labels):
        raise DataError(f"{image_path} has {len(images)} images but {label_path} has {len(labels)} labels")
    check_labels(labels.tolist(), CLASSES, str(label_path))
    return ArrayDataset(images.unsqueeze(1), labels.long(), CLASSES, NORMALISE)


def _find(folder: Path, name: str) -> Path:
    places = [folder, folder / "MNIST" / "raw", folder / "raw"]
    candidates = [place / f"{name}{suffix}" for place in places for suffix in ("", ".gz")]
    for path in candidates:
        if is_file(path):
            return path
    raise DataError(f"{name} is missing; looked for {', '.join(map(str, candidates))}")


def _read(path: Path, dimensions: int) -> Tensor:
    """Read an IDX file of uint8 values with a given number of dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            return _parse(file, path, dimensions)
    except (OSError, EOFError, zlib.error) as error:
        if path.suffix == ".gz" and not isinstance(error, PermissionError):
            raise DataError(
                f"{path}: {_size(path)} bytes that are a truncated or broken gzip file ({error})"
            ) from error
        raise DataError(f"{path}: the file cannot be read ({error})") from error


def _parse(file: BinaryIO | gzip.GzipFile, path: Path, dimensions: int) -> Tensor:
    header = 4 * (1 + dimensions)
    head = file.read(header)
    if len(head) < header:
        raise DataError(f"{path}: found {len(head)} bytes, expected a header of {header}")
    magic, *shape = struct.unpack(f">{1 + dimensions}I", head)
    if magic != 0x800 + dimensions:
        raise DataError(f"{path}: starts with the magic number {magic:#010x}, expected {0x800 + dimensions:#010x}")
    expected = math.prod(shape)
    if expected > LARGEST:
        raise DataError(f"{path}: the shape {tuple(shape)} has {expected} bytes, at most {LARGEST} make sense")
    if path.suffix != ".gz" and _size(path) != header + expected:  # before anything is read
        raise DataError(f"{path}: found {_size(path)} bytes, expected {header + expected} for the shape {tuple(shape)}")
    # One byte more than is due, so that a file that is too long shows.
    values = bytearray(file.read(expected + 1))  # torch wants memory it may write to
    if len(values) != expected:
        found = f"found {header + len(values)}{' or more' * (len(values) > expected)} bytes"
        raise DataError(f"{path}: {found}, expected {header + expected} for the shape {tuple(shape)}")
    return torch.frombuffer(values, dtype=torch.uint8).view(shape) if values else torch.empty(shape).byte()


def _size(path: Path) -> int:
    return path.stat().st_size
