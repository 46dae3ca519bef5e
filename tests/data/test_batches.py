import itertools
import pickle
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset, IterableDataset

from stalegrid.data import ArrayDataset, Batches, CropAndFlip, Slices
from stalegrid.errors import ConfigError, DataError


class Noisy(Dataset[tuple[Tensor, int]]):
    """A user's data set whose transform draws from torch's global generator, and that counts its reads."""

    def __init__(self, size: int = 40) -> None:
        self.size = size
        self.reads = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        return index + torch.rand(3), index


class Items(Dataset[object]):
    """A data set of given items."""

    def __init__(self, *items: object) -> None:
        self.items = items

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> object:
        return self.items[index]


def samples(batches: Batches, group: int, numbers: range) -> list[int]:
    return list(itertools.chain(*(batches.indices(group, number).tolist() for number in numbers)))


def test_groups_share_out_an_epoch(pictures: ArrayDataset) -> None:
    batches = Batches(pictures, groups=3, batch_size=4)
    assert batches.updates_per_epoch == 103 // 3 // 4
    for epoch in (0, 1):
        numbers = range(epoch * 8, epoch * 8 + 8)
        seen = [index for group in range(3) for index in samples(batches, group, numbers)]
        assert len(seen) == len(set(seen)) == 3 * 4 * 8
        assert set(seen) <= set(range(103))
        assert {batches.epoch(0, number) for number in numbers} == {epoch}


def test_every_epoch_has_its_own_order(pictures: ArrayDataset) -> None:
    batches = Batches(pictures, groups=1, batch_size=103)
    first, second = batches.indices(0, 0).tolist(), batches.indices(0, 1).tolist()
    assert sorted(first) == sorted(second) == list(range(103))
    assert first != second
    assert Batches(pictures, groups=1, batch_size=103, seed=1).indices(0, 0).tolist() != first


@pytest.mark.parametrize("groups", [1, 2, 3, 6])
def test_the_groups_together_see_what_one_large_batch_sees(pictures: ArrayDataset, groups: int) -> None:
    small, large = (
        Batches(pictures, groups=groups, batch_size=5),
        Batches(pictures, groups=1, batch_size=5 * groups),
    )
    assert small.updates_per_epoch == large.updates_per_epoch
    for update in range(2 * large.updates_per_epoch + 1):
        union = torch.cat([small.indices(group, update) for group in range(groups)])
        assert torch.equal(union, large.indices(0, update))


@pytest.mark.parametrize(("groups", "micro_batches"), [(1, 1), (2, 1), (1, 2), (3, 2)])
def test_the_rest_of_an_epoch_is_parted_equally(groups: int, micro_batches: int) -> None:
    """Of 104 samples eight are left, or of 102 six, of which every part has as many."""
    size, number = 96 // groups, 104 if groups < 3 else 102
    parts = Batches(Noisy(number), groups=groups, batch_size=size, micro_batches=micro_batches, drop_last=False)
    whole = Batches(Noisy(number), groups=1, batch_size=96, drop_last=False)
    assert parts.updates_per_epoch == whole.updates_per_epoch == 2
    for update in range(6):
        numbers = range(update * micro_batches, (update + 1) * micro_batches)
        seen = [samples(parts, group, numbers) for group in range(groups)]
        assert list(itertools.chain(*seen)) == whole.indices(0, update).tolist()
        assert len({len(parts.indices(group, n)) for group in range(groups) for n in numbers}) == 1
        assert {parts.epoch(0, n) for n in numbers} == {update // 2}
    for epoch in range(3):
        assert sorted(samples(whole, 0, range(2 * epoch, 2 * epoch + 2))) == list(range(number))


def test_a_rest_of_unequal_parts_is_refused(pictures: ArrayDataset) -> None:
    text = r"parted equally \(samples: 3, groups: 2, micro-batches: 1\).*drop_last=True in the DataLoader, or training"
    with pytest.raises(ConfigError, match=text):
        Batches(pictures, groups=2, batch_size=10, drop_last=False)
    with pytest.raises(ConfigError, match=r"\(samples: 3, groups: 1, micro-batches: 2\)"):
        Batches(pictures, groups=1, batch_size=10, micro_batches=2, drop_last=False)
    assert Batches(pictures, groups=2, batch_size=10).updates_per_epoch == 5


@pytest.mark.parametrize("micro_batches", [2, 3, 6])
def test_micro_batches_cut_an_update(pictures: ArrayDataset, micro_batches: int) -> None:
    whole = Batches(pictures, groups=2, batch_size=6, augment=CropAndFlip())
    cut = Batches(pictures, groups=2, batch_size=6, micro_batches=micro_batches, augment=CropAndFlip())
    assert cut.updates_per_epoch == whole.updates_per_epoch
    for update in range(whole.updates_per_epoch + 2):
        for group in range(2):
            parts = range(update * micro_batches, (update + 1) * micro_batches)
            assert all(len(cut.targets(group, part)) == 6 // micro_batches for part in parts)
            assert samples(cut, group, parts) == whole.indices(group, update).tolist()
            assert torch.equal(
                torch.cat([cut.inputs(group, part)[0] for part in parts]), whole.inputs(group, update)[0]
            )
            assert {cut.epoch(group, part) for part in parts} == {whole.epoch(group, update)}


@pytest.mark.parametrize("kind", ["pictures", "noisy"])
def test_any_order_of_calls_gives_equal_bits(pictures: ArrayDataset, kind: str) -> None:
    def build() -> Batches:
        if kind == "noisy":
            return Batches(Noisy(), groups=2, batch_size=6, micro_batches=2, seed=5)
        return Batches(pictures, groups=2, batch_size=6, micro_batches=2, seed=5, augment=CropAndFlip())

    keys = [(group, number) for group in range(2) for number in range(40)]
    ordered = build()
    expected = {key: (ordered.inputs(*key)[0], ordered.targets(*key)) for key in keys}
    shuffled = build()
    calls = [(key, what) for key in keys * 2 for what in ("inputs", "targets")]
    random.Random(0).shuffle(calls)
    for key, what in calls:
        torch.rand(1)  # whoever else draws changes nothing
        result = shuffled.inputs(*key)[0] if what == "inputs" else shuffled.targets(*key)
        assert torch.equal(result, expected[key][what == "targets"])
        result.zero_()  # nor does whoever writes into a batch
        shuffled.indices(*key).zero_()


def test_another_process_sees_the_same_bits() -> None:
    code = """
import hashlib, torch
from stalegrid.data import ArrayDataset, Batches, CropAndFlip
data = ArrayDataset(torch.arange(50 * 64).byte().view(50, 1, 8, 8), torch.arange(50) % 5, 5)
batches = Batches(data, groups=2, batch_size=8, seed=3, augment=CropAndFlip(2))
digest = hashlib.sha256()
for number in range(7):
    digest.update(batches.inputs(1, number)[0].numpy().tobytes())
    digest.update(batches.targets(1, number).numpy().tobytes())
"""
    here: dict[str, object] = {}
    exec(code, here)
    there = subprocess.run(
        [sys.executable, "-c", code + "print(digest.hexdigest())"], capture_output=True, text=True, check=True
    )
    digest = here["digest"]
    assert there.stdout.strip() == digest.hexdigest()  # type: ignore[attr-defined]


def test_a_copy_sent_to_another_process_continues(pictures: ArrayDataset) -> None:
    batches = Batches(pictures, groups=2, batch_size=6, augment=CropAndFlip())
    batches.inputs(0, 20)
    copy = pickle.loads(pickle.dumps(batches))
    assert torch.equal(copy.inputs(1, 3)[0], batches.inputs(1, 3)[0])


def test_a_sample_looks_the_same_in_any_grouping(pictures: ArrayDataset) -> None:
    augment = CropAndFlip(3)
    draws = augment.draw(seed=9, epoch=0, samples=103)
    everything = pictures.prepare(augment.apply(pictures.inputs, draws))
    for groups, batch_size, micro_batches in ((1, 103, 1), (4, 6, 2), (3, 10, 5)):
        batches = Batches(
            pictures,
            groups=groups,
            batch_size=batch_size,
            micro_batches=micro_batches,
            seed=9,
            augment=augment,
        )
        for group in range(groups):
            for number in range(batches.updates_per_epoch * micro_batches):
                indices = batches.indices(group, number)
                assert torch.equal(batches.inputs(group, number)[0], everything[indices])
                assert torch.equal(batches.targets(group, number), pictures.targets[indices])


def test_augmentation_changes_with_the_epoch(pictures: ArrayDataset) -> None:
    batches = Batches(pictures, groups=1, batch_size=103, augment=CropAndFlip())

    def by_sample(number: int) -> Tensor:
        return batches.inputs(0, number)[0][batches.indices(0, number).argsort()]

    assert not torch.equal(by_sample(0), by_sample(1))
    plain = Batches(pictures, groups=1, batch_size=103)
    restored = plain.inputs(0, 1)[0][plain.indices(0, 1).argsort()]
    assert torch.equal(restored, pictures.prepare(pictures.inputs))


def test_targets_of_arrays_build_no_images(pictures: ArrayDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = Batches(pictures, groups=1, batch_size=10, augment=CropAndFlip())

    def never(*_: object) -> None:
        raise AssertionError("an image was built")

    monkeypatch.setattr(ArrayDataset, "prepare", never)
    monkeypatch.setattr(CropAndFlip, "apply", never)
    assert torch.equal(batches.targets(0, 2), pictures.targets[batches.indices(0, 2)])


def test_a_users_random_transform_is_keyed_by_seed_epoch_and_sample() -> None:
    def by_sample(number: int, **options: int) -> Tensor:
        batches = Batches(Noisy(), groups=1, batch_size=40, **options)
        return batches.inputs(0, number)[0][batches.indices(0, number).argsort()]

    first = by_sample(0)
    assert len(first.frac().unique(dim=0)) == 40
    assert not torch.equal(first, by_sample(1))
    assert not torch.equal(first, by_sample(0, seed=1))
    cut = Batches(Noisy(), groups=2, batch_size=10, micro_batches=5)
    for number in range(10):
        assert torch.equal(cut.inputs(1, number)[0], first[cut.indices(1, number)])


def test_reading_leaves_the_global_generator_alone() -> None:
    batches = Batches(Noisy(), groups=1, batch_size=8)
    torch.manual_seed(1)
    expected = torch.rand(4)
    torch.manual_seed(1)
    batches.inputs(0, 0)
    assert torch.equal(torch.rand(4), expected)


def test_inputs_then_targets_read_each_item_once() -> None:
    dataset = Noisy()
    batches = Batches(dataset, groups=2, batch_size=8)
    dataset.reads = 0
    batches.inputs(1, 1)
    batches.targets(1, 1)
    assert dataset.reads == 8
    batches.targets(0, 1)
    assert dataset.reads == 16


def test_the_last_batch_is_not_mistaken_for_that_of_another_epoch() -> None:
    batches = Batches(Noisy(1), groups=1, batch_size=1)
    assert torch.equal(batches.indices(0, 0), batches.indices(0, 1))
    assert not torch.equal(batches.inputs(0, 0)[0], batches.inputs(0, 1)[0])


def test_a_tuple_of_inputs_and_types() -> None:
    item = ((torch.ones(2), torch.ones(3, dtype=torch.int32)), 0.5)
    batches = Batches(Items(item, item), groups=1, batch_size=2, dtype=torch.float64)
    first, second = batches.inputs(0, 0)
    assert (first.shape, first.dtype) == ((2, 2), torch.float64)
    assert (second.shape, second.dtype) == ((2, 3), torch.int32)
    assert batches.targets(0, 0).dtype == torch.float64
    assert Batches(Items((torch.ones(2), 1)), groups=1, batch_size=1).targets(0, 0).dtype == torch.int64
    kept = Batches(Items((torch.ones(2), 1.5)), groups=1, batch_size=1)
    assert (kept.inputs(0, 0)[0].dtype, kept.targets(0, 0).dtype) == (torch.float32, torch.float64)


def test_slices_walk_in_order_without_augmentation(pictures: ArrayDataset) -> None:
    slices = Slices(pictures, 40, torch.float64)
    assert len(slices) == 3
    assert [len(targets) for _, targets in slices] == [40, 40, 23]
    walked = torch.cat([inputs for (inputs,), _ in slices])
    assert torch.equal(walked, pictures.prepare(pictures.inputs, torch.float64))
    assert torch.equal(torch.cat([targets for _, targets in slices]), pictures.targets)
    with pytest.raises(IndexError):
        slices[3]


def test_slices_read_a_users_data_set_the_same_each_time() -> None:
    dataset = Noisy(10)
    slices = Slices(dataset, 4)
    first = list(slices)
    assert torch.cat([targets for _, targets in first]).tolist() == list(range(10))
    assert dataset.reads == 1 + 10
    for ((inputs,), _), ((again,), _) in zip(first, slices, strict=True):
        assert torch.equal(inputs, again)


def test_an_empty_data_set_has_no_slices() -> None:
    assert list(Slices(Items(), 4)) == []


X, Y = torch.zeros(1, 2), torch.tensor([1])


@pytest.mark.parametrize(
    ("item", "args", "kwargs", "targets"),
    [
        ((X[0], 1), (X,), {}, Y),
        (((X[0], 1), 1), (X, Y), {}, Y),
        (({"x": X[0]}, 1), (), {"x": X}, Y),
        ((X[0], {"label": 1, "box": X[0]}), (X,), {}, {"label": Y, "box": X}),
        ((X[0], (1, X[0])), (X,), {}, [Y, X]),
        (X[0], (X,), {}, X),
        ((X[0],), (X,), {}, [X]),
        ((X[0], 1, 1), (X, Y, Y), {}, [X, Y, Y]),
        ({"x": X[0], "labels": 1}, (), {"x": X, "labels": Y}, {"x": X, "labels": Y}),
        ((X[0], {"a": (1, 1)}, 1), (X, {"a": [Y, Y]}, Y), {}, [X, {"a": [Y, Y]}, Y]),
    ],
)
def test_a_pair_is_input_and_target_and_anything_else_goes_whole_to_both(
    item: object, args: Any, kwargs: Any, targets: Any
) -> None:
    for read in (Batches(Items(item), groups=1, batch_size=1), Slices(Items(item), 1)):
        inputs, found = read[0] if isinstance(read, Slices) else (read.inputs(0, 0), read.targets(0, 0))
        assert pytree.tree_map_only(Tensor, Tensor.tolist, read.form.fill(inputs)) == pytree.tree_map_only(
            Tensor, Tensor.tolist, (args, kwargs)
        )
        assert pytree.tree_map_only(Tensor, Tensor.tolist, found) == pytree.tree_map_only(
            Tensor, Tensor.tolist, targets
        )


@pytest.mark.parametrize("later", [(torch.zeros(1), 0, 0), (torch.zeros(1), {"y": 0}), ((torch.zeros(1), 0), 0)])
def test_a_later_batch_of_other_parts_is_refused(later: object) -> None:
    batches = Batches(Items((torch.zeros(1), 0), later), groups=1, batch_size=1)
    with pytest.raises(DataError, match=r"other parts than the first one .*\(sample: 1, epoch: 0\)"):
        [batches.targets(0, b) for b in range(2)]


@pytest.mark.parametrize(
    ("item", "shown"),
    [((torch.zeros(2), "cat"), r"tuple of length 2, at: \[1\]"), ({"x": 1, "y": ["a"]}, r"dict, at: \['y'\]\[0\]")],
)
def test_what_is_no_tensor_is_refused_with_its_place(item: object, shown: str) -> None:
    with pytest.raises(DataError, match=rf"has something else \(it is: a {shown}.*leave it out.* \(sample: 0"):
        Batches(Items(item), groups=1, batch_size=1)


def test_items_that_do_not_stack_are_refused() -> None:
    with pytest.raises(DataError, match="do not stack"):
        Batches(Items((object(), 1)), groups=1, batch_size=1)
    with pytest.raises(DataError, match="do not stack"):
        Batches(Items((torch.zeros(2), 1), (torch.zeros(3), 1)), groups=1, batch_size=2).inputs(0, 0)
    with pytest.raises(DataError, match="make their lists of numbers tensors, and pad them in a collate_fn"):
        Batches(Items({"x": [1, 2]}, {"x": [1, 2, 3]}), groups=1, batch_size=2).inputs(0, 0)


class Stream(IterableDataset[tuple[Tensor, int]]):
    def __iter__(self) -> Iterator[tuple[Tensor, int]]:
        return iter([(torch.zeros(1), 0)])

    def __len__(self) -> int:
        return 1


class Unsized(Dataset[tuple[Tensor, int]]):
    pass


@pytest.mark.parametrize("dataset", [Stream(), Unsized()])
def test_a_stream_is_refused(dataset: Dataset[object]) -> None:
    with pytest.raises(ConfigError, match="is not a map-style data set"):
        Batches(dataset, groups=1, batch_size=1)


def test_a_batch_larger_than_a_share_is_refused(pictures: ArrayDataset) -> None:
    assert Batches(pictures, groups=4, batch_size=25).updates_per_epoch == 1
    with pytest.raises(ConfigError, match=r"batch of 26 .* share of 25 \(103 samples in 4 groups\); take a smaller"):
        Batches(pictures, groups=4, batch_size=26)


def test_micro_batches_must_divide(pictures: ArrayDataset) -> None:
    with pytest.raises(ConfigError, match="4 micro-batches do not divide a batch of 6"):
        Batches(pictures, groups=1, batch_size=6, micro_batches=4)


@pytest.mark.parametrize("name", ["groups", "batch_size", "micro_batches"])
def test_numbers_must_be_positive(pictures: ArrayDataset, name: str) -> None:
    numbers = {"groups": 1, "batch_size": 1, "micro_batches": 1, name: 0}
    with pytest.raises(ConfigError, match=f"{name} must be at least 1, not 0"):
        Batches(pictures, **numbers)
    with pytest.raises(ConfigError, match="batch_size must be at least 1, not 0"):
        Slices(pictures, 0)


@pytest.mark.parametrize(("group", "number"), [(-1, 0), (2, 0), (0, -1)])
def test_there_is_no_such_batch(pictures: ArrayDataset, group: int, number: int) -> None:
    with pytest.raises(ConfigError, match=f"no batch {number} of group {group} among 2"):
        Batches(pictures, groups=2, batch_size=4).inputs(group, number)


def test_augmentation_needs_images_in_memory() -> None:
    with pytest.raises(ConfigError, match="needs an ArrayDataset, not Noisy"):
        Batches(Noisy(), groups=1, batch_size=1, augment=CropAndFlip())
    vectors = ArrayDataset(torch.zeros(4, 3), torch.zeros(4).long(), 1)
    with pytest.raises(ConfigError, match=r"inputs of shape \(4, 3\)"):
        Batches(vectors, groups=1, batch_size=1, augment=CropAndFlip())


def test_the_type_must_be_floating(pictures: ArrayDataset) -> None:
    with pytest.raises(ConfigError, match=r"torch\.int64"):
        Batches(pictures, groups=1, batch_size=1, dtype=torch.int64)
