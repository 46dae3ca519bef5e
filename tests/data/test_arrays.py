import pytest
import torch
from torch.utils.data import DataLoader

from stalegrid.data import ArrayDataset, Normalise
from stalegrid.errors import ConfigError, DataError


def test_normalise_follows_its_formula() -> None:
    images = torch.arange(2 * 3 * 4 * 4).reshape(2, 3, 4, 4).byte()
    mean, std = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
    result = Normalise(mean, std)(images)
    for channel in range(3):
        scaled = images[:, channel].float() / 255
        expected = (scaled - torch.tensor(mean[channel])) / torch.tensor(std[channel])
        assert torch.equal(result[:, channel], expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_normalise_gives_the_requested_type_and_leaves_the_image(dtype: torch.dtype) -> None:
    images = torch.full((1, 1, 2, 2), 200, dtype=torch.uint8)
    result = Normalise((0.5,), (0.25,))(images, dtype)
    assert result.dtype == dtype
    assert torch.equal(images, torch.full((1, 1, 2, 2), 200, dtype=torch.uint8))


def test_bfloat16_is_rounded_once() -> None:
    images = torch.arange(256).byte().view(1, 1, 16, 16)
    normalise = Normalise((0.5,), (0.25,))
    assert torch.equal(normalise(images, torch.bfloat16), normalise(images, torch.float32).bfloat16())


def test_one_sample_equals_its_row_of_a_batch(pictures: ArrayDataset) -> None:
    indices = torch.tensor([5, 102, 0, 5])
    inputs, targets = pictures.fetch(indices)
    for row, index in enumerate(indices.tolist()):
        one, label = pictures[index]
        assert one.dtype == torch.float32
        assert torch.equal(one, inputs[row])
        assert torch.equal(label, targets[row])
    assert torch.equal(pictures[-1][0], pictures[102][0])


def test_an_ordinary_loader_reads_it(pictures: ArrayDataset) -> None:
    batches = list(DataLoader(pictures, batch_size=50))
    assert [len(labels) for _, labels in batches] == [50, 50, 3]
    assert torch.equal(torch.cat([images for images, _ in batches]), pictures.prepare(pictures.inputs))
    assert len(list(pictures)) == len(pictures) == 103


def test_floating_inputs_are_cast_and_integers_are_not() -> None:
    labels = torch.tensor([0, 1])
    indices = torch.tensor([1])
    vectors = ArrayDataset(torch.ones(2, 3), labels, 2)
    assert vectors.fetch(indices, torch.float64)[0].dtype == torch.float64
    tokens = ArrayDataset(torch.ones(2, 3, dtype=torch.int64), labels, 2)
    assert tokens.fetch(indices, torch.float64)[0].dtype == torch.int64


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_outside_the_classes_is_named(label: int) -> None:
    with pytest.raises(DataError, match=f"label {label} at index 2 is not one of 0 to 2"):
        ArrayDataset(torch.zeros(4, 1), torch.tensor([0, 2, label, 9]), 3)


def test_targets_of_a_wrong_type_are_refused() -> None:
    with pytest.raises(DataError, match=r"int64 \(N,\), not torch.float32 \(2,\)"):
        ArrayDataset(torch.zeros(2, 1), torch.zeros(2), 3)


def test_inputs_and_targets_must_be_as_many() -> None:
    with pytest.raises(DataError, match=r"\(2, 1\) and 3 targets"):
        ArrayDataset(torch.zeros(2, 1), torch.tensor([0, 0, 0]), 3)


def test_normalise_must_fit() -> None:
    labels = torch.tensor([0])
    with pytest.raises(ConfigError, match=r"uint8 images .* not torch.float32"):
        ArrayDataset(torch.zeros(1, 1, 2, 2), labels, 1, Normalise((0.5,), (0.5,)))
    with pytest.raises(ConfigError, match="3 channels but 1 means"):
        ArrayDataset(torch.zeros(1, 3, 2, 2).byte(), labels, 1, Normalise((0.5,), (0.5,)))
    with pytest.raises(ConfigError, match="2 means but 1 standard"):
        Normalise((0.5, 0.5), (0.5,))
    with pytest.raises(ConfigError, match="positive"):
        Normalise((0.5,), (0.0,))
