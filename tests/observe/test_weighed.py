import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.observe.weighed import Weighed

LOSSES = st.lists(st.tuples(st.integers(1, 64), st.floats(-100, 100)), min_size=1, max_size=9)


def total(batches: list[tuple[int, float]]) -> tuple[float, float]:
    found = Weighed()
    for samples, loss in batches:
        found.add(loss, 1.0, samples)
    return found.total()


@given(LOSSES)
def test_means_are_averaged_over_samples(batches: list[tuple[int, float]]) -> None:
    """Not to the bit: floats are added here, fractions there."""
    counts, losses = total(batches)
    exact = sum(n * Fraction(loss) for n, loss in batches) / sum(n for n, _ in batches)
    assert losses / counts == pytest.approx(float(exact), rel=1e-9, abs=1e-9)


@given(st.integers(1, 64), st.lists(st.floats(-100, 100), min_size=1, max_size=9))
def test_nothing_is_rounded_where_batches_are_equally_large(samples: int, losses: list[float]) -> None:
    plain = 0.0
    for loss in losses:
        plain += loss
    assert total([(samples, loss) for loss in losses]) == (len(losses), plain)


def test_sums_have_no_weights() -> None:
    found = Weighed()
    found.add(10.0, 20.0, None)
    found.add(2.0, 4.0, None)
    assert found.total() == (24.0, 12.0)


def test_nothing_counts_nothing() -> None:
    assert Weighed().total() == (0, 0)
    assert math.isnan(total([(1, math.nan)])[1])
