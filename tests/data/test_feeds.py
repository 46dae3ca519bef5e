"""The batches of a process: each is read once, whoever wants it, and is what a batch is without a feed."""

import os
import threading
from collections import Counter
from contextlib import ExitStack
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset, default_collate

from stalegrid.data import ArrayDataset, Batches, Feed, Readers, Unread, feed, reading_of
from stalegrid.errors import DataError, ProtocolError

GROUPS, BATCHES = 2, 6


class Counted(Dataset[Any]):
    def __init__(self) -> None:
        self.reads: Counter[int] = Counter()

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        self.reads[index] += 1
        return {"x": torch.rand(3) + index}, {"y": index}


def made(data: Dataset[Any]) -> Batches:
    return Batches(data, groups=GROUPS, batch_size=4, micro_batches=2)


@pytest.fixture
def stack() -> Any:
    with ExitStack() as found:
        yield found


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_a_batch_is_what_it_is_without_a_feed(workers: int, stack: ExitStack) -> None:
    plain = made(Counted())
    fed = feed(made(Counted()), {0: (0, 0), 1: (0,)}, BATCHES, workers, Readers(stack))
    assert isinstance(fed, Feed)
    assert fed.form == plain.form
    for batch in range(BATCHES):
        for group in range(GROUPS):
            assert torch.equal(fed.inputs(group, batch)[0], plain.inputs(group, batch)[0])
            assert fed.checksum(group, batch) == plain.checksum(group, batch)
            assert torch.equal(fed.indices(group, batch), plain.indices(group, batch))
        # The last stage comes later, and in one group it lives in another process.
        if batch >= 2:
            assert torch.equal(fed.targets(0, batch - 2)["y"], plain.targets(0, batch - 2)["y"])
            assert fed.checksum(0, batch - 2) == plain.checksum(0, batch - 2)


def test_a_sample_is_read_once_for_all_who_want_it_here() -> None:
    data = Counted()
    fed = feed(made(data), {0: (0, 0)}, BATCHES, 0, None)
    data.reads.clear()
    for batch in range(BATCHES + 2):
        if batch < BATCHES:
            fed.inputs(0, batch)[0].zero_()
        if batch >= 2:
            assert fed.targets(0, batch - 2)["y"].tolist() == fed.indices(0, batch - 2).tolist()
    assert sum(data.reads.values()) == 2 * BATCHES
    assert set(data.reads.values()) == {1}
    assert not fed._kept  # type: ignore[union-attr]


def test_nobody_changes_what_another_gets() -> None:
    fed = feed(made(Counted()), {0: (0, 0)}, BATCHES, 0, None)
    fed.inputs(0, 0)[0].zero_()
    before = fed.checksum(0, 0)
    fed.targets(0, 0)["y"].zero_()
    assert fed.checksum(0, 0) == before == made(Counted()).checksum(0, 0)


def test_tensors_in_memory_are_not_read_ahead(pictures: ArrayDataset, stack: ExitStack) -> None:
    batches = made(pictures)
    assert feed(batches, {0: (0, 0)}, BATCHES, 4, Readers(stack)) is batches


def test_nobody_reads_ahead_where_nobody_ends_it() -> None:
    fed = feed(made(Counted()), {0: (0, 0)}, BATCHES, 4, None)
    assert isinstance(fed, Feed)
    assert not fed._ahead


STARTER = os.getpid()


def hang() -> None:
    """Wait for what never comes, in every other process."""
    if os.getpid() != STARTER:
        threading.Event().wait()


class Hanging(Counted):
    def __init__(self, sample: int) -> None:
        super().__init__()
        self.sample = sample

    def __getitem__(self, index: int) -> Any:
        if index == self.sample:
            hang()
        return super().__getitem__(index)


@pytest.mark.timeout(60)
def test_a_sample_that_takes_too_long_to_read_ahead_is_named(stack: ExitStack) -> None:
    batches = made(Counted())
    sample = int(batches.indices(0, 3)[1])
    fed = feed(made(Hanging(sample)), {0: (0,)}, BATCHES, 2, Readers(stack, 0.5))
    for batch in range(3):
        assert torch.equal(fed.inputs(0, batch)[0], batches.inputs(0, batch)[0])
    told = rf"\(sample: {sample}, epoch: 0\): TimeoutError: it took longer than 0.5 s; .* raise the deadline"
    with pytest.raises(DataError, match=told):
        fed.inputs(0, 3)


def stuck(items: list[Any]) -> Any:
    hang()
    return default_collate(items)


@pytest.mark.timeout(60)
def test_a_function_that_takes_too_long_to_make_a_batch_is_told_of(stack: ExitStack) -> None:
    batches = Batches(reading_of(Counted(), stuck), groups=1, batch_size=4)
    fed = feed(batches, {0: (0,)}, BATCHES, 1, Readers(stack, 0.5))
    with pytest.raises(DataError, match=r"the collate_fn fails \(samples: .*TimeoutError: it took longer than 0.5 s"):
        fed.inputs(0, 0)


def test_of_batches_that_nobody_reads_no_more_than_the_numbers_is_known() -> None:
    batches = made(Counted())
    unread, nothing = Unread(batches.numbers.apart()), Unread(None)
    assert torch.equal(unread.indices(1, 3), batches.indices(1, 3))
    for ask in (unread.inputs, unread.targets, unread.checksum, nothing.indices):
        with pytest.raises(ProtocolError, match="nobody was to read one"):
            ask(0, 0)
