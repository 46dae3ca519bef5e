"""Batches of groups that have samples of their own."""

import pickle

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from stalegrid.data import Batches, Counted, Numbers, Owned, TrainingSettings
from stalegrid.data.shapes import examples
from stalegrid.errors import ConfigError

DATA = TensorDataset(torch.arange(60.0).view(60, 1), torch.arange(60) % 5)


def owned(**changes: object) -> tuple[Batches, Owned]:
    options = {"groups": 3, "batch_size": 4, "split": "dirichlet=0.7", "seed": 2} | changes
    batches = Batches(DATA, **options)  # type: ignore[arg-type]
    assert isinstance(batches.numbers, Owned)
    return batches, batches.numbers


@pytest.mark.parametrize("micro_batches", [1, 2, 4])
def test_each_group_goes_through_its_own_samples_pass_after_pass(micro_batches: int) -> None:
    batches, numbers = owned(micro_batches=micro_batches)
    passes = [numbers.updates(group) for group in range(3)]
    assert len(set(passes)) > 1
    for group, own in enumerate(numbers.dealt.samples):
        assert passes[group] == len(own) // 4
        orders = []
        for number in range(3):
            updates = range(number * passes[group], (number + 1) * passes[group])
            parts = [part for n in updates for part in range(n * micro_batches, (n + 1) * micro_batches)]
            assert {batches.epoch(group, part) for part in parts} == {number}
            assert {len(batches.indices(group, part)) for part in parts} == {4 // micro_batches}
            seen = torch.cat([batches.indices(group, part) for part in parts]).tolist()
            assert len(seen) == len(set(seen)) == 4 * passes[group]
            assert set(seen) <= set(own.tolist())
            orders.append(seen)
        assert orders[0] != orders[1] != orders[2]


def test_an_epoch_counts_samples_as_where_they_are_shared_out() -> None:
    batches, _ = owned()
    assert batches.updates_per_epoch == Batches(DATA, groups=3, batch_size=4).updates_per_epoch == 5


def test_batches_of_unlike_sizes_are_taken_from_own_samples() -> None:
    batches, numbers = owned(batch_size=[6, 2, 4])
    assert [len(batches.indices(group, 9)) for group in range(3)] == [6, 2, 4]
    assert [numbers.updates(group) for group in range(3)] == [
        len(own) // size for own, size in zip(numbers.dealt.samples, (6, 2, 4), strict=True)
    ]


def test_any_order_of_calls_gives_the_same_and_nobody_changes_what_is_kept() -> None:
    batches, _ = owned()
    first = [batches.indices(group, batch) for batch in range(9) for group in range(3)]
    for found in first:
        found += 1
    again = [batches.indices(group, batch) + 1 for batch in reversed(range(9)) for group in reversed(range(3))]
    assert all(map(torch.equal, first, reversed(again)))


def test_they_travel_without_data_and_orders() -> None:
    batches, numbers = owned()
    batches.indices(1, 3)
    found = pickle.loads(pickle.dumps(numbers.apart()))
    assert numbers.kept
    assert found.kept == {}
    assert b"TensorDataset" not in pickle.dumps(numbers)
    assert found.indices(1, 3).equal(batches.indices(1, 3))


def test_even_is_as_it_was_and_so_is_one_group() -> None:
    for groups, split in ((3, "even"), (1, "dirichlet=0.1"), (1, "shards=2")):
        batches, plain = (
            Batches(DATA, groups=groups, batch_size=4, split=split),
            Batches(DATA, groups=groups, batch_size=4),
        )
        assert isinstance(batches.numbers, Numbers)
        assert all(batches.indices(s, b).equal(plain.indices(s, b)) for s in range(groups) for b in range(20))


def test_a_group_with_less_than_a_batch_is_named() -> None:
    text = r"without a batch \(group: 1, samples: 2, batch_size: 4, seed: 0\); take smaller batches"
    data = TensorDataset(torch.randn(9, 1), torch.tensor([0] * 8 + [1]))
    with pytest.raises(ConfigError, match=text):
        Batches(data, groups=2, batch_size=4, split="dirichlet=0.01", seed=0)


def test_there_are_no_others() -> None:
    batches, _ = owned()
    for group, batch in ((3, 0), (-1, 0), (0, -1)):
        with pytest.raises(ConfigError, match=rf"no batch {batch} of group {group} among 3 groups"):
            batches.indices(group, batch)


def test_a_loader_and_a_last_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"a DataLoader has an order of its own.*\(split: shards=2\); give the data"):
        Batches(DataLoader(DATA, 4, shuffle=True), groups=2, batch_size=4, split="shards=2")
    with pytest.raises(ConfigError, match=r"\(split: shards=2, training.drop_last: false\); leave it out"):
        Batches(DATA, groups=2, batch_size=4, split="shards=2", drop_last=False)
    assert not isinstance(Batches(DATA, groups=2, batch_size=4, split="shards=2", drop_last=True).numbers, Counted)


def test_all_samples_of_the_largest_group_are_looked_at_for_shapes() -> None:
    batches, numbers = owned()
    (updates,) = numbers.of_a_size(1000)
    assert updates == range(max(map(numbers.updates, range(3))))
    assert numbers.of_a_size(2) == [range(2)]
    assert len(examples(batches, TrainingSettings(), 1000, cut=True, targets=False)) == 1
