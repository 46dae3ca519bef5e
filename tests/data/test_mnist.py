import gzip
import os
import struct
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stalegrid.data import load_mnist
from stalegrid.errors import DataError

IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(values: Tensor) -> bytes:
    header = struct.pack(f">{1 + values.ndim}I", 0x800 + values.ndim, *values.shape)
    return header + values.byte().numpy().tobytes()


@pytest.fixture
def images() -> Tensor:
    return torch.randint(256, (5, 28, 28), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)


@pytest.fixture
def folder(tmp_path: Path, images: Tensor) -> Path:
    (tmp_path / IMAGES).write_bytes(idx(images))
    (tmp_path / LABELS).write_bytes(idx(torch.tensor([3, 1, 4, 1, 9])))
    return tmp_path


@pytest.mark.parametrize("inside", [".", "MNIST/raw", "raw"])
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("train", [False, True])
def test_reads_every_layout(tmp_path: Path, images: Tensor, inside: str, compressed: bool, train: bool) -> None:
    place = tmp_path / inside
    place.mkdir(parents=True, exist_ok=True)
    stem = "train" if train else "t10k"
    for name, values in (
        (f"{stem}-images-idx3-ubyte", images),
        (f"{stem}-labels-idx1-ubyte", torch.arange(5)),
    ):
        content = idx(values)
        (place / (name + ".gz" * compressed)).write_bytes(gzip.compress(content) if compressed else content)
    dataset = load_mnist(tmp_path, train)
    assert torch.equal(dataset.inputs, images.view(5, 1, 28, 28))
    assert dataset.targets.tolist() == [0, 1, 2, 3, 4]
    expected = (images[2].float() / 255 - torch.tensor(0.1307)) / torch.tensor(0.3081)
    assert torch.equal(dataset[2][0], expected.view(1, 28, 28))


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_mnist(tmp_path / "nowhere", train=True)


def test_a_missing_file_is_named(folder: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte is missing; looked for .*raw.*\.gz"):
        load_mnist(folder, train=True)
    (folder / LABELS).unlink()
    with pytest.raises(DataError, match="t10k-labels-idx1-ubyte is missing"):
        load_mnist(folder, train=False)


@pytest.mark.parametrize(("change", "found"), [(-1, 3935), (1, 3937)])
def test_a_file_of_the_wrong_size_is_named(folder: Path, images: Tensor, change: int, found: int) -> None:
    (folder / IMAGES).write_bytes((idx(images) + b"\0")[: 3936 + change])
    with pytest.raises(DataError, match=rf"{IMAGES}: found {found} bytes, expected 3936 for the shape \(5, 28, 28\)"):
        load_mnist(folder, train=False)


@pytest.mark.parametrize("name", [IMAGES, LABELS])
def test_a_file_shorter_than_its_header_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(b"\0\0\x08")
    with pytest.raises(DataError, match=f"{name}: found 3 bytes, expected a header of"):
        load_mnist(folder, train=False)


def test_a_wrong_magic_number_is_named(folder: Path, images: Tensor) -> None:
    (folder / LABELS).write_bytes(idx(images))
    with pytest.raises(DataError, match=f"{LABELS}: starts with the magic number 0x00000803, expected 0x00000801"):
        load_mnist(folder, train=False)


def test_images_of_another_size_are_refused(folder: Path) -> None:
    (folder / IMAGES).write_bytes(idx(torch.zeros(5, 28, 27)))
    with pytest.raises(DataError, match=rf"{IMAGES}: images of \(28, 27\) pixels, expected \(28, 28\)"):
        load_mnist(folder, train=False)


def test_images_and_labels_must_be_as_many(folder: Path) -> None:
    (folder / LABELS).write_bytes(idx(torch.zeros(4)))
    with pytest.raises(DataError, match=f"has 5 images but .*{LABELS} has 4 labels"):
        load_mnist(folder, train=False)


def test_a_wrong_label_is_named(folder: Path) -> None:
    (folder / LABELS).write_bytes(idx(torch.tensor([0, 9, 10, 0, 0])))
    with pytest.raises(DataError, match=f"{LABELS}: label 10 at index 2 is not one of 0 to 9"):
        load_mnist(folder, train=False)


@pytest.mark.parametrize("damage", ["cut", "garbled", "other"])
def test_a_broken_compressed_file_is_named(folder: Path, images: Tensor, damage: str) -> None:
    (folder / IMAGES).unlink()
    whole = gzip.compress(idx(images))
    broken = {"cut": whole[:50], "garbled": whole[:600] + b"\xff" * 40 + whole[640:], "other": b"not gzip"}[damage]
    (folder / f"{IMAGES}.gz").write_bytes(broken)
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz: {len(broken)} bytes that are a truncated or broken gzip"):
        load_mnist(folder, train=False)


def test_a_compressed_file_that_grows_without_end_is_read_as_far_as_its_shape(folder: Path) -> None:
    (folder / IMAGES).unlink()
    head = struct.pack(">4I", 0x803, 5, 28, 28)
    (folder / f"{IMAGES}.gz").write_bytes(gzip.compress(head + bytes(50_000_000)))
    with pytest.raises(DataError, match=rf"{IMAGES}\.gz: found 3937 or more bytes, expected 3936"):
        load_mnist(folder, train=False)


@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_a_shape_that_makes_no_sense_is_refused_before_anything_is_read(folder: Path, suffix: str) -> None:
    (folder / IMAGES).unlink()
    head = struct.pack(">4I", 0x803, 2**32 - 1, 28, 28)
    path = folder / f"{IMAGES}{suffix}"
    path.write_bytes(gzip.compress(head) if suffix else head)
    if not suffix:
        os.truncate(path, 100 << 30)  # sparse: takes no room
    with pytest.raises(DataError, match=rf"{IMAGES}.*: the shape .* has {(2**32 - 1) * 784} bytes, at most"):
        load_mnist(folder, train=False)


def test_no_images_at_all(folder: Path) -> None:
    (folder / IMAGES).write_bytes(idx(torch.zeros(0, 28, 28)))
    (folder / LABELS).write_bytes(idx(torch.zeros(0)))
    assert len(load_mnist(folder, train=False)) == 0


def test_the_official_files(real_data: Path) -> None:
    train, test = load_mnist(real_data, train=True), load_mnist(real_data, train=False)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert train.targets[:5].tolist() == [5, 0, 4, 1, 9]
    pixels = train.inputs.float() / 255
    assert pixels.mean().item() == pytest.approx(0.1307, abs=1e-4)
    assert pixels.std().item() == pytest.approx(0.3081, abs=1e-4)
