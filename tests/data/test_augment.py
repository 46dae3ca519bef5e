import pytest
import torch
from torch import Tensor

from stalegrid.data import CropAndFlip
from stalegrid.errors import ConfigError


def one_by_one(images: Tensor, draws: Tensor, padding: int) -> Tensor:
    """Crop and flip as one would by hand, pixel by pixel of a black canvas."""
    batch, channels, height, width = images.shape
    result = torch.zeros_like(images)
    for b in range(batch):
        top, left, flip = draws[b].tolist()
        canvas = torch.zeros(channels, height + 2 * padding, width + 2 * padding, dtype=images.dtype)
        canvas[:, padding : padding + height, padding : padding + width] = images[b]
        for x in range(width):
            column = width - 1 - x if flip else x
            result[b, :, :, x] = canvas[:, top : top + height, left + column]
    return result


@pytest.mark.parametrize("dtype", [torch.uint8, torch.float32])
@pytest.mark.parametrize("padding", [0, 2, 4])
@pytest.mark.parametrize("flip", [True, False])
def test_a_batch_equals_the_loop(dtype: torch.dtype, padding: int, flip: bool) -> None:
    images = torch.randint(1, 256, (40, 3, 9, 7), generator=torch.Generator().manual_seed(1)).to(dtype)
    before = images.clone()
    augment = CropAndFlip(padding, flip)
    draws = augment.draw(seed=3, epoch=2, samples=40)
    result = augment.apply(images, draws)
    assert result.dtype == dtype
    assert torch.equal(result, one_by_one(images, draws, padding))
    assert torch.equal(images, before)


def test_draws_cover_every_corner_and_both_flips() -> None:
    draws = CropAndFlip(padding=4).draw(seed=0, epoch=0, samples=5000)
    assert draws.dtype == torch.int64
    assert draws.shape == (5000, 3)
    top, left, flip = draws.unbind(1)
    assert top.unique().tolist() == left.unique().tolist() == list(range(9))
    assert flip.unique().tolist() == [0, 1]
    assert len(draws.unique(dim=0)) == 9 * 9 * 2
    assert abs(flip.float().mean().item() - 0.5) < 0.05


def test_draws_are_a_function_of_seed_and_epoch() -> None:
    augment = CropAndFlip()
    first = augment.draw(seed=1, epoch=5, samples=100)
    torch.rand(3)
    assert torch.equal(first, augment.draw(seed=1, epoch=5, samples=100))
    assert not torch.equal(first, augment.draw(seed=1, epoch=6, samples=100))
    assert not torch.equal(first, augment.draw(seed=2, epoch=5, samples=100))


def test_without_flip_the_crops_are_the_same() -> None:
    flipped, plain = CropAndFlip(flip=True).draw(0, 0, 50), CropAndFlip(flip=False).draw(0, 0, 50)
    assert torch.equal(flipped[:, :2], plain[:, :2])
    assert not plain[:, 2].any()


def test_negative_padding_is_refused() -> None:
    with pytest.raises(ConfigError, match="-1"):
        CropAndFlip(padding=-1)
