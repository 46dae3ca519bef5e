import math

import pytest
import torch

from stalegrid.codecs.bf16 import Bf16

CODEC = Bf16()


def through(values: list[float], dtype: torch.dtype = torch.float32) -> list[float]:
    vector = torch.tensor(values, dtype=dtype)
    return CODEC.decode(CODEC.encode(vector), len(values), dtype).tolist()  # type: ignore[no-any-return]


def test_ties_go_to_the_even_one() -> None:
    # Eight bits: from 1 on numbers are 2^-7 apart.
    assert through([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-7]) == [1.0, 1 + 2**-6, 1 + 2**-7]


def test_what_is_not_finite_stays_what_it_is() -> None:
    made = through([math.inf, -math.inf, math.nan, 1e-40])
    assert made[:2] == [math.inf, -math.inf]
    assert math.isnan(made[2])
    assert made[3] == pytest.approx(1e-40, rel=0.01)


def test_beyond_its_range_a_float64_is_infinite() -> None:
    assert through([1e39, -1e300], torch.float64) == [math.inf, -math.inf]


def test_a_vector_of_its_own_type_loses_nothing() -> None:
    vector = torch.randn(99).to(torch.bfloat16)
    assert torch.equal(CODEC.decode(CODEC.encode(vector), 99, torch.bfloat16), vector)
