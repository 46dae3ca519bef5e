import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from stalegrid.codecs.topk import TopK


def through(vector: Tensor, fraction: float) -> Tensor:
    codec = TopK(fraction)
    return codec.decode(codec.encode(vector), vector.numel(), vector.dtype)


def test_the_largest_travel_as_they_are() -> None:
    vector = torch.tensor([0.1, -3.0, 2.0, 0.2, -0.3])
    assert through(vector, 0.4).tolist() == pytest.approx([0.0, -3.0, 2.0, 0.0, 0.0])
    values, places = TopK(0.4).encode(vector)
    assert values.tolist() == [-3.0, 2.0]
    assert places.tolist() == [1, 2]


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, math.inf, math.nan]), max_size=40), st.floats(0.01, 1.0))
def test_ties_go_to_the_lowest_place(values: list[float], fraction: float) -> None:
    sizes = [math.inf if math.isnan(v) else abs(v) for v in values]
    count = min(len(values), max(1, round(fraction * len(values))))
    due = sorted(sorted(range(len(values)), key=lambda i: (-sizes[i], i))[:count])
    assert TopK(fraction).encode(torch.tensor(values))[1].tolist() == due


def test_many_ties_do_not_depend_on_threads() -> None:
    vector = torch.ones(100_001)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4)
        assert torch.equal(TopK(0.1).encode(vector)[1], torch.arange(10_000, dtype=torch.int32))
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
def test_all_of_them_lose_nothing(dtype: torch.dtype) -> None:
    vector = torch.tensor([0.0, -0.0, math.inf, -math.inf, math.nan, 1.5, -2.0], dtype=dtype)
    made = through(vector, 1.0)
    assert made.view(torch.uint8).tolist() == vector.view(torch.uint8).tolist()


def test_what_is_no_number_is_never_left_out() -> None:
    vector = torch.full((100,), math.inf)
    vector[77] = 5.0
    vector[3] = math.nan
    assert math.isnan(through(vector, 0.05)[3])


@pytest.mark.parametrize("numel", [0, 1, 2, 99, 1000])
def test_what_travels_is_as_long_as_its_layout_says(numel: int) -> None:
    codec = TopK(0.01)
    parts = codec.encode(torch.ones(numel))
    due = [(s.shape, s.dtype) for s in codec.layout(numel, torch.float32)]
    assert [(tuple(p.shape), p.dtype) for p in parts] == due
    assert len(parts[0]) == (0 if not numel else max(1, round(numel / 100)))
