"""Batches that other processes read: the same ones, in order, and nobody is left when they are read no more."""

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stalegrid.data.ahead import Ahead
from stalegrid.errors import DataError

Tensors = tuple[Tensor, ...]


def numbered(batch: int) -> Tensors:
    return torch.full((2,), batch), torch.rand(3).double()


@pytest.fixture
def begin() -> Iterator[Callable[..., Ahead]]:
    made: list[Ahead] = []

    def one(read: Callable[[int], Tensors], number: int = 9, workers: int = 2) -> Ahead:
        made.append(Ahead(read, number, workers))
        return made[-1]

    yield one
    for ahead in made:
        ahead.close()
    assert not multiprocessing.active_children()


@pytest.mark.parametrize("workers", [1, 3])
def test_batches_come_in_order(begin: Callable[..., Ahead], workers: int) -> None:
    ahead = begin(numbered, workers=workers)
    found = [ahead.next(batch) for batch in range(9)]
    assert [x.tolist() for x, _ in found] == [[batch, batch] for batch in range(9)]
    assert all(y.dtype == torch.float64 for _, y in found)


def test_nobody_reads_before_the_first_is_asked_for_or_after_the_end(begin: Callable[..., Ahead]) -> None:
    ahead = begin(numbered)
    assert not multiprocessing.active_children()
    ahead.next(0)
    assert len(multiprocessing.active_children()) == 2
    ahead.close()
    assert not multiprocessing.active_children()


def test_who_asks_draws_as_if_nobody_had_read(begin: Callable[..., Ahead]) -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    begin(numbered).next(0)
    assert torch.equal(torch.rand(3), expected)


def failing(batch: int) -> Tensors:
    if batch == 2:
        raise DataError("a sample cannot be read (sample: 7, epoch: 0)")
    return numbered(batch)


def test_an_error_of_a_sample_is_told_as_it_is(begin: Callable[..., Ahead]) -> None:
    ahead = begin(failing)
    for batch in range(2):
        ahead.next(batch)
    with pytest.raises(DataError, match=r"^a sample cannot be read \(sample: 7, epoch: 0\)$"):
        ahead.next(2)


def killed(batch: int) -> Tensors:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def test_a_process_that_is_killed_is_told_of(begin: Callable[..., Ahead]) -> None:
    with pytest.raises(DataError, match=r"reads samples ahead has ended \(batch: 0\): DataLoader worker"):
        begin(killed, workers=1).next(0)


BIG = torch.arange(1_000_000)


def test_a_part_of_much_memory_is_handed_over_alone(begin: Callable[..., Ahead]) -> None:
    (found,) = begin(lambda batch: (BIG[batch : batch + 3],)).next(0)
    assert found.tolist() == [0, 1, 2]
    assert found.untyped_storage().nbytes() == found.nbytes


class Own(Tensor):
    pass


@pytest.mark.parametrize(
    "values", [torch.ones(1, requires_grad=True) * 2, torch.ones(1).as_subclass(Own)], ids=["part of a graph", "a kind"]
)
def test_a_tensor_that_cannot_be_handed_over_is_refused(begin: Callable[..., Ahead], values: Tensor) -> None:
    with pytest.raises(DataError, match="cannot be handed to another process"):
        begin(lambda _: (values,)).next(0)


SCRIPT = """
import sys, time
from pathlib import Path
import torch
from stalegrid.data.ahead import Ahead

def read(batch):
    Path(sys.argv[1], str(__import__("os").getpid())).touch()
    if batch:
        time.sleep(600)
    return (torch.ones(1),)

ahead = Ahead(read, 9, 2)
ahead.next(0)
print("read", flush=True)
time.sleep(600)
"""


def test_they_end_with_a_process_that_is_killed_though_they_read(tmp_path: Path) -> None:
    starter = subprocess.Popen([sys.executable, "-c", SCRIPT, str(tmp_path)], stdout=subprocess.PIPE)
    try:
        assert starter.stdout is not None
        assert starter.stdout.readline() == b"read\n"
        end = time.monotonic() + 60
        while len(readers := [int(path.name) for path in tmp_path.iterdir()]) < 2:
            assert time.monotonic() < end
    finally:
        starter.kill()
        starter.communicate(timeout=60)
    while any(Path(f"/proc/{reader}").exists() for reader in readers):
        assert time.monotonic() < end
