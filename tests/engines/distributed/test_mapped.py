"""Arrays and tensors in mapped files travel by path; what may differ from its file travels by value."""

import io
import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cloudpickle
import numpy as np
import pytest
import torch
from torch import Tensor

from stalegrid.engines.distributed.packing import Packer

SMALL = 1000
"""Bytes that a path takes at most."""

VIEWS: dict[str, Callable[[Any], Any]] = {
    "whole": lambda m: m,
    "a slice": lambda m: m[100:900],
    "with gaps, backwards": lambda m: m[::2, ::-3],
    "a plain array": np.asarray,
    "transposed": lambda m: m.T,
    "another type": lambda m: m.view(np.int32)[3:],
}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    np.save(tmp_path / "x.npy", np.arange(250_000, dtype=np.float32).reshape(500, 500))
    return tmp_path / "x.npy"


def sent(value: Any) -> tuple[Any, int]:
    """Return what arrives, and how many bytes were written for it."""
    file = io.BytesIO()
    Packer(file).dump(value)
    size = file.tell()
    file.seek(0)
    return cloudpickle.load(file), size


def tensor_of(array: Any) -> Tensor:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch tells of memory that cannot be written
        return torch.from_numpy(array)


@pytest.mark.parametrize("mode", ["r", "r+"])
@pytest.mark.parametrize("name", VIEWS)
def test_a_mapped_array_travels_by_its_path(path: Path, mode: Any, name: str) -> None:
    array = VIEWS[name](np.load(path, mmap_mode=mode))
    found, size = sent(array)
    assert size < SMALL
    assert np.array_equal(found, array)
    assert (type(found), found.dtype, found.strides) == (type(array), array.dtype, array.strides)
    assert found.flags.writeable == (mode == "r+")


def test_a_tensor_of_a_mapped_array_or_file_travels_by_its_path(path: Path) -> None:
    array = np.load(path, mmap_mode="r")
    for tensor in (tensor_of(array)[7:], torch.from_file(str(path), shared=True, size=200_000)):
        found, size = sent({"x": tensor})
        assert size < SMALL
        assert torch.equal(found["x"], tensor)


def test_what_may_differ_from_its_file_travels_by_value(path: Path) -> None:
    private = np.load(path, mmap_mode="c")
    private[0] = -1
    changed = torch.from_file(str(path), shared=False, size=200_000)
    changed[:] = 3
    for value in (private, np.asarray(private), changed, torch.randn(50_000), torch.randn(50_000).share_memory_()):
        found, size = sent(value)
        assert size > value.nbytes
        assert bool((found == value).all())


@pytest.mark.parametrize("gone", ["removed", "replaced"])
def test_a_file_that_lost_its_name_travels_by_value(path: Path, gone: str) -> None:
    array = np.load(path, mmap_mode="r")
    path.unlink()
    if gone == "replaced":
        np.save(path, np.zeros((500, 500), dtype=np.float32))
    found, size = sent(array)
    assert size > array.nbytes
    assert np.array_equal(found, array)


def test_a_renamed_file_is_found(path: Path) -> None:
    array = np.load(path, mmap_mode="r")
    os.rename(path, path.with_name("y.npy"))
    found, size = sent(array)
    assert size < SMALL
    assert np.array_equal(found, array)
