import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from stalegrid.data import ArrayDataset, load_cifar10
from stalegrid.errors import DataError

ROWS, PIXELS = 10_000, 3072
FILE_BYTES = ROWS * (1 + PIXELS)


@pytest.fixture(scope="module")
def rows() -> np.ndarray:
    """A file's worth of rows: label, then pixels."""
    content = np.random.default_rng(0).integers(0, 256, (ROWS, 1 + PIXELS), dtype=np.uint8)
    content[:, 0] %= 10
    return content


def write_binary(folder: Path, content: bytes) -> Path:
    place = folder / "cifar-10-batches-bin"
    place.mkdir()
    path = place / "test_batch.bin"
    path.write_bytes(content)
    return path


def write_pickled(folder: Path, content: bytes) -> Path:
    place = folder / "cifar-10-batches-py"
    place.mkdir()
    path = place / "test_batch"
    path.write_bytes(content)
    return path


def python2_string(value: bytes) -> bytes:
    return b"T" + struct.pack("<i", len(value)) + value


def python2_pickle(
    pixels: bytes,
    labels: list[int],
    shape: tuple[int, int] = (ROWS, PIXELS),
    dtype: bytes = b"u1",
    fortran: bool = False,
) -> bytes:
    """The bytes that Python 2's cPickle writes for {"data": array, "labels": labels} with protocol 2."""
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    descr = b"cnumpy\ndtype\nU" + bytes([len(dtype)]) + dtype + b"K\x00K\x01\x87R"
    descr += b"(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    dimensions = b"".join(b"J" + struct.pack("<i", size) for size in shape) + b"\x86"
    state = b"(K\x01" + dimensions + descr + (b"\x88" if fortran else b"\x89") + python2_string(pixels) + b"tb"
    numbers = b"](" + b"".join(b"J" + struct.pack("<i", label) for label in labels) + b"e"
    return b"\x80\x02}(U\x04data" + array + state + b"U\x06labels" + numbers + b"u."


def assert_holds(dataset: ArrayDataset, rows: np.ndarray) -> None:
    assert dataset.inputs.dtype == torch.uint8
    assert np.array_equal(dataset.inputs.numpy(), rows[:, 1:].reshape(-1, 3, 32, 32))
    assert dataset.targets.tolist() == rows[:, 0].tolist()
    assert dataset.classes == 10


def test_reads_the_binary_layout_from_either_folder(tmp_path: Path, rows: np.ndarray) -> None:
    path = write_binary(tmp_path, rows.tobytes())
    assert_holds(load_cifar10(tmp_path, train=False), rows)
    assert_holds(load_cifar10(path.parent, train=False), rows)


def test_images_are_normalised_by_channel(tmp_path: Path, rows: np.ndarray) -> None:
    write_binary(tmp_path, rows.tobytes())
    image, _ = load_cifar10(tmp_path, train=False)[3]
    for channel, (mean, std) in enumerate([(0.4914, 0.2470), (0.4822, 0.2435), (0.4465, 0.2616)]):
        pixels = torch.from_numpy(rows[3, 1:].reshape(3, 32, 32)[channel]).float() / 255
        assert torch.equal(image[channel], (pixels - torch.tensor(mean)) / torch.tensor(std))


def test_reads_the_training_files_in_order(tmp_path: Path) -> None:
    for number in range(1, 6):
        content = np.full((ROWS, 1 + PIXELS), number, dtype=np.uint8)
        (tmp_path / f"data_batch_{number}.bin").write_bytes(content.tobytes())
    dataset = load_cifar10(tmp_path, train=True)
    assert len(dataset) == 5 * ROWS
    expected = torch.arange(1, 6).repeat_interleave(ROWS)
    assert torch.equal(dataset.targets, expected)
    assert torch.equal(dataset.inputs[:, 2, 31, 31].long(), expected)


@pytest.mark.parametrize("fortran", [False, True])
def test_reads_the_pickled_layout_from_either_folder(tmp_path: Path, rows: np.ndarray, fortran: bool) -> None:
    pixels = rows[:, 1:].tobytes(order="F" if fortran else "C")
    content = python2_pickle(pixels, rows[:, 0].tolist(), fortran=fortran)
    reference = pickle.loads(content, encoding="bytes")  # the test's own file is a true pickle of the array
    assert np.array_equal(reference[b"data"], rows[:, 1:])
    path = write_pickled(tmp_path, content)
    assert_holds(load_cifar10(tmp_path, train=False), rows)
    assert_holds(load_cifar10(path.parent, train=False), rows)


def test_reads_a_pickle_that_python_3_wrote(tmp_path: Path, rows: np.ndarray) -> None:
    content = {b"data": np.ascontiguousarray(rows[:, 1:]), b"labels": rows[:, 0].tolist()}
    write_pickled(tmp_path, pickle.dumps(content, protocol=4))
    assert_holds(load_cifar10(tmp_path, train=False), rows)


class Hostile:
    """A pickle of this makes a folder when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return os.mkdir, (str(self.path),)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path: Path) -> None:
    marker = tmp_path / "was run"
    content = pickle.dumps({b"data": Hostile(marker), b"labels": [0]})
    pickle.loads(content)
    assert marker.exists()  # so it would have run
    marker.rmdir()
    path = write_pickled(tmp_path, content)
    with pytest.raises(DataError, match=r"test_batch: refused to load (posix|nt)\.mkdir") as caught:
        load_cifar10(tmp_path, train=False)
    assert str(path) in str(caught.value)
    assert not marker.exists()


@pytest.mark.parametrize(
    "name", [b"builtins\neval", b"numpy\nload", b"numpy.core.multiarray\nfromfile", b"_codecs\nencode"]
)
def test_other_globals_are_refused(tmp_path: Path, name: bytes) -> None:
    write_pickled(tmp_path, b"\x80\x02c" + name + b"\n.")
    with pytest.raises(DataError, match="refused to load " + name.decode().replace("\n", ".")):
        load_cifar10(tmp_path, train=False)


def test_allowed_globals_are_not_called(tmp_path: Path) -> None:
    # Called for real, numpy.ndarray would claim an exabyte.
    write_pickled(tmp_path, b"\x80\x02cnumpy\nndarray\nI%d\n\x85R." % 2**60)
    with pytest.raises(DataError, match="expected a dict with the keys"):
        load_cifar10(tmp_path, train=False)


def test_a_stand_in_cannot_be_changed_by_a_pickle(tmp_path: Path) -> None:
    write_pickled(tmp_path, b"\x80\x02cnumpy\nndarray\nN}U\x01xK\x01s\x86b.")  # BUILD on the class itself
    with pytest.raises(DataError, match="broken pickle"):
        load_cifar10(tmp_path, train=False)


def test_pickles_of_other_things_are_refused(tmp_path: Path) -> None:
    labels, short = [0] * ROWS, b"\0" * 16
    no_dict = "expected a dict with the keys b'data' and b'labels'"
    no_labels = "b'labels' is not a list of 10000 whole numbers"
    no_array = "b'data' is not an array of uint8"
    cases = [
        (pickle.dumps([1, 2]), no_dict),
        (pickle.dumps({b"data": 1}), no_dict),
        (pickle.dumps({b"data": 1, b"labels": [0]}), no_labels),
        (pickle.dumps({b"data": 1, b"labels": [0.5] * ROWS}), no_labels),
        (pickle.dumps({b"data": 1, b"labels": labels}), no_array),
        (python2_pickle(short, labels, dtype=b"i8"), no_array),
        (python2_pickle(short, labels, shape=(4, 4)), r"shape \(4, 4\), expected \(10000, 3072\)"),
        (python2_pickle(short, labels), "holds 16 bytes, expected 30720000"),
    ]
    path = write_pickled(tmp_path, b"")
    for content, message in cases:
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"test_batch: .*{message}"):
            load_cifar10(tmp_path, train=False)


@pytest.mark.parametrize("label", [10, -1])
def test_a_wrong_label_in_a_pickle_is_named(tmp_path: Path, label: int) -> None:
    labels = [0] * ROWS
    labels[77] = label
    write_pickled(tmp_path, python2_pickle(b"", labels))
    with pytest.raises(DataError, match=f"test_batch: label {label} at index 77 is not one of 0 to 9"):
        load_cifar10(tmp_path, train=False)


def test_a_truncated_pickle_is_named(tmp_path: Path) -> None:
    content = python2_pickle(b"\0" * 100, [0])
    path = write_pickled(tmp_path, content[:90])
    with pytest.raises(DataError, match="test_batch: 90 bytes that are a truncated or broken pickle"):
        load_cifar10(tmp_path, train=False)
    path.write_bytes(b"")
    with pytest.raises(DataError, match="test_batch: 0 bytes"):
        load_cifar10(tmp_path, train=False)


HOSTILE = {
    "nested tuples, hashed as a key": b"\x80\x02}" + b")" + 200_000 * b"\x85" + b"K\x00s.",
    "nested lists": b"\x80\x02" + 200_000 * b"](" + 200_000 * b"e" + b".",
    "a tuple of twice itself, again and again": b"\x80\x02})" + 100 * b"2\x86" + b"K\x00s.",
    "a note under a huge number": b"\x80\x02K\x00r\xff\xff\xff\x7f.",
    "a text that is longer than the file": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 40) + b".",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_pickle_that_would_exhaust_the_machine_is_refused(tmp_path: Path, name: str) -> None:
    write_pickled(tmp_path, HOSTILE[name])
    with pytest.raises(DataError, match=r"test_batch: .*(not as simple|broken pickle)"):
        load_cifar10(tmp_path, train=False)


@pytest.mark.parametrize("write", [write_binary, write_pickled])
def test_a_file_that_is_huge_is_not_read(tmp_path: Path, write: Callable[[Path, bytes], Path]) -> None:
    os.truncate(write(tmp_path, b""), 100 << 30)  # sparse: takes no room
    with pytest.raises(DataError, match=r"larger than makes sense here .*test_batch"):
        load_cifar10(tmp_path, train=False)


def test_a_folder_that_no_system_can_have_is_named() -> None:
    with pytest.raises(DataError, match="path cannot be used"):
        load_cifar10(Path("x" * 300), train=False)


@pytest.mark.parametrize("write", [write_binary, write_pickled])
def test_a_file_that_may_not_be_read_is_named(
    tmp_path: Path, write: Callable[[Path, bytes], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def closed(path: Path, *arguments: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    path = write(tmp_path, b"")
    monkeypatch.setattr(Path, "open", closed)  # whoever runs the tests may read any file
    with pytest.raises(DataError, match=f"cannot be read .*{path.name}.*Permission denied"):
        load_cifar10(tmp_path, train=False)


@pytest.mark.parametrize("found", [0, 100, FILE_BYTES - 1, FILE_BYTES + 1])
def test_a_file_of_the_wrong_size_is_named(tmp_path: Path, found: int) -> None:
    path = write_binary(tmp_path, b"")
    os.truncate(path, found)
    with pytest.raises(DataError, match=rf"test_batch\.bin: found {found} bytes, expected {FILE_BYTES}"):
        load_cifar10(tmp_path, train=False)


def test_a_wrong_label_is_named(tmp_path: Path) -> None:
    content = bytearray(FILE_BYTES)
    content[9_999 * (1 + PIXELS)] = 10
    write_binary(tmp_path, bytes(content))
    with pytest.raises(DataError, match=r"test_batch\.bin: label 10 at index 9999 is not one of 0 to 9"):
        load_cifar10(tmp_path, train=False)


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: no such folder"):
        load_cifar10(tmp_path / "nowhere", train=True)


def test_a_missing_file_is_named_with_all_that_was_looked_for(tmp_path: Path) -> None:
    place = tmp_path / "cifar-10-batches-bin"
    place.mkdir()
    for number in (1, 2, 4, 5):
        (place / f"data_batch_{number}.bin").touch()
    with pytest.raises(DataError) as caught:
        load_cifar10(tmp_path, train=True)
    message = str(caught.value)
    assert f"{place} lacks data_batch_3.bin;" in message
    assert f"{tmp_path / 'cifar-10-batches-py'} lacks data_batch_1, data_batch_2" in message
    with pytest.raises(DataError, match=r"lacks test_batch\.bin"):
        load_cifar10(tmp_path, train=False)


def test_the_official_files(real_data: Path) -> None:
    train, test = load_cifar10(real_data, train=True), load_cifar10(real_data, train=False)
    assert (len(train), len(test)) == (50_000, 10_000)
    assert train.targets.bincount().tolist() == [5000] * 10
    assert test.targets.bincount().tolist() == [1000] * 10
    assert train.targets[:5].tolist() == [6, 9, 9, 4, 1]
    histogram = torch.stack([train.inputs[:, channel].flatten().bincount(minlength=256) for channel in range(3)])
    levels = torch.arange(256) / 255
    mean = (histogram * levels).sum(1) / histogram.sum(1)
    std = ((histogram * levels**2).sum(1) / histogram.sum(1) - mean**2).sqrt()
    assert mean.tolist() == pytest.approx([0.4914, 0.4822, 0.4465], abs=1e-4)
    assert std.tolist() == pytest.approx([0.2470, 0.2435, 0.2616], abs=1e-4)
