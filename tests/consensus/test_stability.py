"""The limit of mixing what is late, against the recursion itself."""

import numpy as np
import pytest

from stalegrid.consensus.stability import delta_limit, stable_delta


def left(gap: float, lag: int, period: int, updates: int = 4000) -> float:
    """Return the distance that is left of 1 along one eigenvector of P, with gap 1 - lambda."""
    past = [1.0] * (lag + 1)  # versions n - lag to n
    for n in range(updates):
        due = (n + 1) % period == 0
        past = [*past[1:], past[-1] - (gap * past[0] if due else 0.0)]
    return float(np.abs(past).max())


@pytest.mark.parametrize("period", [1, 2, 3])
@pytest.mark.parametrize("lag", [0, 1, 2, 3, 5])
def test_two_percent_below_the_limit_groups_come_together_and_above_it_they_part(lag: int, period: int) -> None:
    limit = delta_limit(lag, period)
    assert left(0.98 * limit, lag, period) < 1e-3
    assert left(1.02 * limit, lag, period) > 1e3
    assert stable_delta([1.0, 1 - 0.98 * limit], lag, period)
    assert not stable_delta([1.0, 1 - 1.02 * limit], lag, period)


def test_the_published_limits() -> None:
    assert [round(delta_limit(c, 1), 3) for c in range(3)] == [2.0, 1.0, 0.618]
    assert [delta_limit(c, c + 1) for c in range(5)] == [2.0] * 5


def test_a_limit_that_is_met_is_no_stability() -> None:
    assert not stable_delta([1.0, 0.0], 1, 1)
    assert not stable_delta([1.0, -1.0], 0, 1)
