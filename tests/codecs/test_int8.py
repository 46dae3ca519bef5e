import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stalegrid.codecs.int8 import Int8

CODEC = Int8()


def through(vector: Tensor) -> Tensor:
    return CODEC.decode(CODEC.encode(vector), vector.numel(), vector.dtype)


def test_by_hand() -> None:
    # The scale of 127 is 1 times a power of two, so whole numbers are exact, and halves go to the even one.
    vector = torch.tensor([127.0, 2.5, 3.5, -2.5, -0.4, 0.0])
    codes, scales, exponent = CODEC.encode(vector)
    assert codes.tolist() == [127, 2, 4, -2, 0, 0]
    assert scales.tolist() == [2.0**15]
    assert exponent.tolist() == [7]
    assert through(vector).tolist() == [127.0, 2.0, 4.0, -2.0, 0.0, 0.0]


def test_blocks_have_scales_of_their_own() -> None:
    vector = torch.cat([torch.full((64,), 1000.0), torch.full((64,), 0.001), torch.tensor([1.0])])
    made = through(vector)
    torch.testing.assert_close(made, vector, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("size", [1e-30, 1e-12, 1e-7, 1.0, 1e7, 1e30])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_any_size_is_as_good_as_any_other(dtype: torch.dtype, size: float) -> None:
    vector = torch.randn(200, dtype=dtype, generator=torch.Generator().manual_seed(0)) * size
    step = vector.abs().max() / 127
    assert ((through(vector) - vector).abs() <= step * 0.51).all()
    # A float16 alone has no scale for the smallest, nor for the largest of these.
    assert (through(vector) != 0).sum() > 150


@pytest.mark.parametrize("value", [1.79e308, 1e308, 1e-310, 5e-324])
def test_the_ends_of_float64(value: float) -> None:
    made = through(torch.tensor([value, -value / 2], dtype=torch.float64))
    assert made.isfinite().all()
    assert 0 <= made[0] <= value * 1.001
    if value > 1:
        torch.testing.assert_close(made[0].item(), value, rtol=1e-3, atol=0.0)


@pytest.mark.parametrize("wrong", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_nan_and_harms_no_other(wrong: float) -> None:
    vector = torch.arange(70.0)
    made = through(torch.cat([torch.tensor([wrong]), vector]))
    assert math.isnan(made[0])
    assert torch.equal(made[1:64], through(torch.cat([torch.tensor([0.0]), vector]))[1:64])


def test_half_types_are_no_exception() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        vector = torch.randn(100, generator=torch.Generator().manual_seed(0)).to(dtype)
        made = through(vector)
        assert made.dtype == dtype
        assert (made - vector).abs().max() < vector.abs().max() / 100


@given(numel=st.integers(0, 200))
def test_what_travels_is_as_long_as_its_layout_says(numel: int) -> None:
    vector = torch.ones(numel)
    parts = CODEC.encode(vector)
    assert [(tuple(p.shape), p.dtype) for p in parts] == [(s.shape, s.dtype) for s in CODEC.layout(numel, vector.dtype)]
    torch.testing.assert_close(through(vector), vector, rtol=1e-3, atol=0.0)
    assert sum(s.nbytes for s in CODEC.layout(numel, vector.dtype)) == numel + 2 * -(-numel // 64) + 2


def test_zeros_are_zeros() -> None:
    assert torch.equal(through(torch.zeros(130)), torch.zeros(130))
