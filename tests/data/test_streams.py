"""Streams: whose samples come in order, pass after pass, a slice a group."""

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from stalegrid import seeds
from stalegrid.data.passes import is_stream
from stalegrid.data.repeating import READ_TWICE, check_stream, fingerprint
from stalegrid.data.streams import Stream
from stalegrid.errors import ConfigError, DataError


class Count(IterableDataset[Any]):
    """Numbers, each with what is drawn for it; counts how often it is gone through and how far."""

    def __init__(self, size: int | None = None) -> None:
        self.size, self.begun, self.read = size, 0, 0

    def __iter__(self) -> Iterator[Any]:
        self.begun += 1
        n = 0
        while self.size is None or n < self.size:
            self.read += 1
            yield torch.tensor(float(n)), torch.rand(()), random.random(), np.random.rand()
            n += 1


class Epochs(Count):
    """Says in which pass it is, as ``datasets`` does."""

    epoch = -1

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __iter__(self) -> Iterator[Any]:
        return ((100.0 * self.epoch + sample[0],) for sample in super().__iter__())


class Once:
    """Can be gone through only once."""

    def __init__(self, size: int | None) -> None:
        self.rest = iter(Count(size))

    def __iter__(self) -> Iterator[Any]:
        return self.rest


def numbers(stream: Stream, group: int, batch: int) -> list[int]:
    return [int(x) for x in stream.inputs(group, batch)[0]]


@settings(deadline=None)
@given(groups=st.integers(1, 3), size=st.integers(1, 4), micro=st.integers(1, 3), size_of=st.integers(36, 60))
def test_groups_share_what_one_group_with_all_their_samples_sees(
    groups: int, size: int, micro: int, size_of: int
) -> None:
    batch, updates = size * micro, 4
    shared = Stream(Count(size_of), groups=groups, batch_size=batch, micro_batches=micro)
    alone = Stream(Count(size_of), groups=1, batch_size=groups * batch)
    for n in range(updates):
        parts = [shared.inputs(s, n * micro + i) for s in range(groups) for i in range(micro)]
        whole = alone.inputs(0, n)
        assert all(torch.equal(torch.cat(p), w) for p, w in zip(zip(*parts, strict=True), whole, strict=True))


def test_draws_are_keyed_by_pass_and_number_and_the_users_generators_left_alone() -> None:
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    stream = Stream(Count(5), groups=1, batch_size=2, seed=7)
    found = [stream.inputs(0, n) for n in range(3)]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before[1:]
    places = [(0, 0), (0, 1), (0, 2), (0, 3), (1, 0), (1, 1)]  # the fifth of a pass fills no update
    with seeds.kept(torch.device("cpu")):
        for place, sample in zip(places, zip(*map(torch.cat, zip(*found, strict=True)), strict=True), strict=True):
            seeds.key(torch.device("cpu"), 7, "sample", *place)
            assert [float(x) for x in sample] == [place[1], float(torch.rand(())), random.random(), np.random.rand()]


def test_a_pass_that_ends_begins_anew_and_what_fills_no_update_is_dropped() -> None:
    stream = Stream(Count(7), groups=2, batch_size=1, micro_batches=1)
    assert [[numbers(stream, s, n) for s in range(2)] for n in range(5)] == [
        [[0], [1]],
        [[2], [3]],
        [[4], [5]],
        [[0], [1]],
        [[2], [3]],
    ]


def test_a_stream_that_knows_epochs_is_told_the_pass() -> None:
    stream = Stream(Epochs(2), groups=1, batch_size=2)
    assert [numbers(stream, 0, n) for n in range(3)] == [[0, 1], [100, 101], [200, 201]]


class Shuffled(Count):
    """Draws its order when a pass begins."""

    def __iter__(self) -> Iterator[Any]:
        assert self.size is not None
        return iter(torch.randperm(self.size).tolist())


def test_what_is_drawn_as_a_pass_begins_is_keyed_by_the_pass() -> None:
    one, other = (Stream(Shuffled(16), groups=1, batch_size=16, seed=5) for _ in range(2))
    first, second = numbers(one, 0, 0), numbers(one, 0, 1)
    torch.rand(3)
    assert [numbers(other, 0, n) for n in range(2)] == [first, second]
    assert first != second
    assert first != numbers(Stream(Shuffled(16), groups=1, batch_size=16, seed=6), 0, 0)


def test_samples_are_counted_over_all_passes() -> None:
    stream = Stream(Count(5), groups=2, batch_size=4, micro_batches=2)
    assert [stream.indices(1, b).tolist() for b in range(4)] == [[4, 5], [6, 7], [12, 13], [14, 15]]


def test_nothing_is_read_before_it_is_asked_for_and_nothing_twice() -> None:
    data = Count()
    stream = Stream(data, groups=2, batch_size=3, micro_batches=3)
    assert (data.begun, data.read) == (0, 0)
    for b in range(9):
        for s in range(2):
            stream.inputs(s, b)
            stream.targets(s, b)
            stream.inputs(s, b)
        assert (data.begun, data.read) == (1, 6 * (b // 3 + 1))


def test_a_group_that_runs_ahead_leaves_the_others_theirs() -> None:
    stream = Stream(Count(), groups=2, batch_size=1)
    assert [numbers(stream, 0, n) for n in range(5)] == [[0], [2], [4], [6], [8]]
    assert [numbers(stream, 1, n) for n in range(5)] == [[1], [3], [5], [7], [9]]


def test_only_what_groups_here_have_not_used_is_kept() -> None:
    stream = Stream(Count(), groups=3, batch_size=2, here=[1])
    for n in range(50):
        assert numbers(stream, 1, n) == [6 * n + 2, 6 * n + 3]
        assert len(stream._due._samples) == 2
    with pytest.raises(ConfigError, match="batch 50 of group 0 cannot be read: a stream is read in order"):
        stream.inputs(0, 50)
    with pytest.raises(ConfigError, match="batch 48 of group 1 cannot be read"):
        stream.inputs(1, 48)


def test_inputs_that_are_changed_in_place_do_not_change_what_is_kept() -> None:
    stream = Stream(Count(), groups=1, batch_size=2)
    stream.inputs(0, 0)[0].zero_()
    assert numbers(stream, 0, 0) == [0, 1]


def test_inputs_targets_and_form_are_those_of_any_data() -> None:
    class Pairs(Count):
        def __iter__(self) -> Iterator[Any]:
            return (({"x": x, "more": [y]}, {"t": int(x)}) for x, y, *_ in super().__iter__())

    stream = Stream(Pairs(), groups=1, batch_size=2, dtype=torch.float64)
    args, kwargs = stream.form.fill(stream.inputs(0, 0))
    assert args == ()
    assert kwargs["x"].tolist() == [0.0, 1.0]
    assert kwargs["more"][0].dtype == torch.float64
    assert stream.targets(0, 0)["t"].tolist() == [0, 1]
    assert stream.checksum(0, 0) == 0


class Sized(Count):
    def __len__(self) -> int:
        assert self.size is not None
        return self.size


class Refusing(Count):
    def __len__(self) -> int:
        raise TypeError("no length")


def test_a_length_is_told_only_where_there_is_one() -> None:
    assert Stream(Sized(50), groups=2, batch_size=8).updates_per_epoch == 3
    assert Stream(Count(50), groups=2, batch_size=8).updates_per_epoch is None
    assert Stream(Refusing(50), groups=2, batch_size=8).updates_per_epoch is None


class Unsized(Dataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(range(3))


class NoData(Dataset[Any]):
    def __getitem__(self, index: int) -> int:
        return index


def test_what_is_a_stream() -> None:
    x = torch.zeros(4)
    assert all(map(is_stream, (Count(), Sized(3), Unsized(), Once(3), iter([1]))))
    assert not any(map(is_stream, (TensorDataset(x), [1], NoData(), DataLoader(TensorDataset(x)), None)))


def test_a_stream_that_is_too_short_for_an_update_is_refused() -> None:
    stream = Stream(Count(5), groups=2, batch_size=3)
    with pytest.raises(DataError, match=r"not as many samples .* \(samples: 5, an update takes: 6\)"):
        stream.inputs(0, 0)


def test_a_stream_that_does_not_begin_anew_is_told_of_where_it_ends() -> None:
    stream = Stream(Once(5), groups=1, batch_size=2)  # type: ignore[arg-type]
    assert [numbers(stream, 0, n) for n in range(2)] == [[0, 1], [2, 3]]
    with pytest.raises(DataError, match=r"\(samples of pass 0: 5, of pass 1: 0, an update takes: 2\); let __iter__"):
        stream.inputs(0, 2)


class Broken(Count):
    def __init__(self, at: int) -> None:
        super().__init__()
        self.at = at

    def __iter__(self) -> Iterator[Any]:
        if self.at < 0:
            raise OSError("gone")
        for sample in super().__iter__():
            if sample[0] == self.at:
                raise OSError("no such file")
            yield sample


class Eager(Count):
    def __iter__(self) -> Iterator[Any]:
        raise OSError("gone")


def test_a_sample_that_cannot_be_read_is_named() -> None:
    stream = Stream(Broken(3), groups=1, batch_size=2)
    stream.inputs(0, 0)
    with pytest.raises(DataError, match=r"cannot be read \(sample: 3, pass: 0\): OSError: no such file"):
        stream.inputs(0, 1)
    with pytest.raises(DataError, match=r"cannot be read \(sample: 0, pass: 0\): OSError: gone"):
        Stream(Broken(-1), groups=1, batch_size=2).inputs(0, 0)
    with pytest.raises(DataError, match=r"cannot be gone through \(pass: 0\): OSError: gone"):
        Stream(Eager(), groups=1, batch_size=2).inputs(0, 0)


def test_numbers_that_make_no_batches_are_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
        Stream(Count(), groups=1, batch_size=0)
    with pytest.raises(ConfigError, match="3 micro-batches do not divide a batch of 4 samples"):
        Stream(Count(), groups=1, batch_size=4, micro_batches=3)


class Unkeyed(Count):
    """Draws from a generator of its own."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__(size)
        self.own = np.random.default_rng(0)

    def __iter__(self) -> Iterator[Tensor]:
        return (torch.tensor(self.own.random()) for _ in super().__iter__())


@pytest.mark.parametrize("data", [Count(), Count(3), Epochs(5), Sized(20)])
def test_a_stream_that_repeats_is_accepted(data: Count) -> None:
    check_stream(data, 0, 3)
    assert data.read <= 2 * READ_TWICE
    assert fingerprint(data) == fingerprint(data)
    assert fingerprint(data) != fingerprint(Unkeyed())


@pytest.mark.parametrize("make", [Unkeyed, lambda: Once(None), lambda: Once(5)])
def test_one_that_does_not_is_told_of_and_refused_where_groups_share_it(make: Any) -> None:
    with pytest.warns(UserWarning, match="gives other samples when it is gone through again"):
        check_stream(make(), 0, 1)
    with pytest.raises(DataError, match=r"goes through it for its share \(groups: 2\); let __iter__ begin"):
        check_stream(make(), 0, 2)
    assert fingerprint(make()) == "stream"
