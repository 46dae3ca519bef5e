"""Which shapes of batches are found, and how much is read for that."""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from stalegrid.data import ArrayDataset, Batches, Example, TrainingSettings, examples, pad_to, reading_of
from stalegrid.errors import ConfigError, DataError


class Texts(Dataset[Any]):
    """Sequences of 1 to 4 numbers, with targets of 1 or 2."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __len__(self) -> int:
        return 24

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return torch.arange(1 + i % 4), torch.zeros(1 + i // 12)


def found(data: Any, size: int = 1, updates: int = 99, **options: Any) -> list[Example]:
    asked = {name: options.pop(name) for name in ("shapes", "workers") if name in options}
    batches = Batches(data, groups=options.pop("groups", 1), batch_size=size)
    return examples(batches, TrainingSettings(**asked), updates, **{"cut": True, "targets": False} | options)


def in_order(data: Dataset[Any], **options: Any) -> DataLoader[Any]:
    return DataLoader(data, options.pop("size", 1), drop_last=True, **options)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_first_epoch_is_read_for_one_batch_of_each_shape(workers: int) -> None:
    made = found(in_order(Texts()), shapes=4, workers=workers)
    assert [one.inputs[0].shape for one in made] == [(1, 1), (1, 2), (1, 3), (1, 4)]
    assert [one.samples().tolist() for one in made] == [[0], [1], [2], [3]]
    assert [torch.equal(one.inputs[0][0], torch.arange(1 + i)) for i, one in enumerate(made)] == [True] * 4


def test_a_shorter_run_is_read_to_its_end_and_groups_are_read_in_turn() -> None:
    assert len(found(in_order(Texts()), updates=2, shapes=4)) == 2
    made = found(in_order(Texts()), updates=2, shapes=4, groups=2)
    assert [one.samples().tolist() for one in made] == [[0], [1], [2], [3]]


def test_targets_count_where_they_travel() -> None:
    made = found(in_order(Texts()), shapes=8, targets=True)
    assert [(len(one.inputs[0][0]), len(one.targets[0])) for one in made] == [
        (n, m) for m in (1, 2) for n in (1, 2, 3, 4)
    ]


def test_nothing_is_read_but_the_first_batch_where_no_shape_matters() -> None:
    for options in ({}, {"shapes": 1}, {"shapes": 4, "cut": False}):
        data = Texts()
        assert len(found(in_order(data), **options)) == 1  # type: ignore[arg-type]
        assert set(data.read) == {0}
    assert len(found(ArrayDataset(torch.zeros(9, 2), torch.arange(9), 9), shapes=4)) == 1


def test_what_makes_batches_says_their_shapes_and_nothing_else_is_read() -> None:
    data = Texts()
    made = found(in_order(data, size=2, collate_fn=pad_to([2, 4, 9], (0, None))), size=2)
    assert [one.inputs[0].shape for one in made] == [(2, 2), (2, 4), (2, 9)]
    assert set(data.read) == {0, 1}
    later = found(in_order(Texts(), sampler=range(2, 24), size=2, collate_fn=pad_to([2, 4], (0, None))), size=2)
    assert [one.inputs[0].shape for one in later] == [(2, 4), (2, 2)], "the first batch comes first"


def test_a_function_of_ones_own_may_say_its_shapes_too() -> None:
    class Own:
        def __call__(self, items: list[Any]) -> tuple[Tensor, Tensor]:
            return torch.zeros(len(items), 3), torch.zeros(len(items))

        def of_each_shape(self, items: list[Any]) -> Iterator[Any]:
            return iter([self(items), (torch.zeros(1, 7), torch.zeros(1))])

    assert [one.inputs[0].shape for one in found(reading_of(Texts(), Own()))] == [(1, 3), (1, 7)]

    class Other(Own):
        def of_each_shape(self, items: list[Any]) -> Iterator[Any]:
            return iter([{"x": torch.zeros(1)}])

    with pytest.raises(DataError, match="a batch has other parts than the first one"):
        found(reading_of(Texts(), Other()))


def test_more_shapes_than_are_allowed_are_refused() -> None:
    with pytest.raises(
        ConfigError, match=r"training.shapes: 3, found: \(1, 1\); \(1, 2\); \(1, 3\), and: \(1, 4\), sam"
    ):
        found(in_order(Texts()), shapes=3)
    with pytest.raises(ConfigError, match=r"training.shapes: 2, found: \(1, 2\); \(1, 4\), and: \(1, 9\), sample: 0\)"):
        found(in_order(Texts(), collate_fn=pad_to([2, 4, 9], (0, None))), shapes=2)
    for cut in (True, False):
        with pytest.raises(ConfigError, match=r"a shape at least \(training.shapes: 0\)"):
            found(in_order(Texts()), shapes=0, cut=cut)


class Growing(Texts):
    """Sequences of 1 number, of 2 from sample 10 on, and of 3 from sample 20 on."""

    def __len__(self) -> int:
        return 30

    def __getitem__(self, i: int) -> Any:
        self.read.append(i)
        return torch.arange(1 + i // 10), 0


class Turning(Sampler[int]):
    """Ends its first epoch with sample 4, its second with sample 14, its third with sample 24."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 5

    def __iter__(self) -> Iterator[int]:
        return iter([0, 1, 2, 3, 4 + 10 * self.epoch])


def test_the_last_batches_of_all_epochs_are_read_for_their_shapes() -> None:
    def shapes(**options: Any) -> list[list[int]]:
        loader = DataLoader(Growing(), 2, sampler=Turning())
        return [list(one.inputs[0].shape) for one in found(loader, size=2, **options)]

    assert shapes(updates=9, shapes=3) == [[2, 1], [1, 1], [1, 2], [1, 3]]
    assert shapes(updates=8, shapes=3) == [[2, 1], [1, 1], [1, 2]]
    assert shapes(updates=2, shapes=3) == [[2, 1]], "the run ends before"
    assert shapes(updates=9) == [[2, 1], [1, 1]]
    assert shapes(updates=9, cut=False) == [[2, 1], [1, 1]], "a model in one piece may not take it either"
    with pytest.raises(ConfigError, match=r"training.shapes: 2, found: \(1, 1\); \(1, 2\), and: \(1, 3\), sample: 24"):
        shapes(updates=9, shapes=2)


def test_what_makes_batches_says_the_shapes_of_the_last_one_too() -> None:
    data = Texts()
    loader = DataLoader(data, 5, collate_fn=pad_to([4, 9], (0, None)), sampler=range(12, 24))
    made = found(loader, size=5)
    assert [list(one.inputs[0].shape) for one in made] == [[5, 4], [5, 9], [2, 4], [2, 9]]
    assert [one.samples().tolist() for one in made[2:]] == [[22, 23]] * 2
    assert set(data.read) == {*range(5), *range(12, 17), 22, 23}, "the first five for what batches consist of"
