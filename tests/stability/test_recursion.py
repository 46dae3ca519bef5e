"""The largest rate of late descent, against closed forms, the roots, and descents that are carried out as written."""

import math

import numpy as np
import pytest

from stalegrid.stability import Late, Momentum, Recursion, delayed_limit

STEPS = [
    Momentum(),
    Momentum(momentum=0.9),
    Momentum(momentum=0.9, nesterov=True),
    Momentum(momentum=0.5, dampening=0.5),
]


def descended(recursion: Recursion, rate: float, updates: int) -> float:
    """Return the distance from the minimum that is left of 1: the loop, as torch's SGD would do it."""
    steps, past = recursion.steps, recursion.delay
    w, v = [1.0] * (past + 1), [0.0] * (past + 1)
    largest = 0.0
    for n in range(updates):
        q = recursion.fresh * w[-1]
        for part in recursion.late:
            q += part.curvature * (w[-1 - part.delay] - rate * part.ahead * v[-1 - part.delay])
        momentum = steps.momentum * v[-1] + (1 - steps.dampening) * q
        moved = q + steps.momentum * momentum if steps.nesterov else momentum
        w, v = [*w[1:], w[-1] - rate * moved], [*v[1:], momentum]
        largest = max(largest, abs(w[-1])) if n >= updates - 50 else 0.0
    return largest


@pytest.mark.parametrize("delay", range(9))
def test_without_momentum_it_is_the_closed_form(delay: int) -> None:
    for curvature in (0.01, 1.0, 300.0):
        found = Recursion((Late(delay, curvature),)).largest_rate()
        assert found * curvature == pytest.approx(delayed_limit(delay), rel=1e-12)


def test_the_closed_form_has_the_published_values() -> None:
    assert [round(delayed_limit(m), 3) for m in (0, 1, 2, 4, 6)] == [2.0, 1.0, 0.618, 0.347, 0.241]


def test_known_limits_with_momentum() -> None:
    heavy = Momentum(momentum=0.9)
    assert Recursion((), 1.0, heavy).largest_rate() == pytest.approx(2 * 1.9)  # Polyak
    assert Recursion((Late(0, 1.0),), 0.0, heavy).largest_rate() == pytest.approx(2 * 1.9)
    # z^2 - 1.9 z + 0.9 + gamma a = 0, whose roots' product is 1 where it is unstable.
    assert Recursion((Late(1, 1.0),), 0.0, heavy).largest_rate() == pytest.approx(0.1)


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("delay", range(9))
def test_the_largest_root_crosses_the_circle_there_and_nowhere_below(delay: int, steps: Momentum) -> None:
    for ahead in (0, delay):
        recursion = Recursion((Late(delay, 1.0, ahead),), 0.1, steps)
        limit = recursion.largest_rate()
        assert recursion.modulus(limit) == pytest.approx(1.0, abs=1e-9)
        assert recursion.modulus(1.02 * limit) > 1.0
        assert all(recursion.modulus(share * limit) < 1.0 for share in np.linspace(0.01, 0.99, 99))


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize(
    "late",
    [(Late(2, 1.0),), (Late(0, 0.25), Late(1, 0.75)), (Late(3, 2.0, 3),), (Late(4, 0.5), Late(2, 0.3), Late(0, 0.2))],
    ids=str,
)
def test_descents_as_written_grow_and_shrink_by_the_largest_root(late: tuple[Late, ...], steps: Momentum) -> None:
    recursion = Recursion(late, 0.05, steps)
    limit = recursion.largest_rate()
    for share in (0.97, 1.03):
        modulus = recursion.modulus(share * limit)
        first, later = (descended(recursion, share * limit, updates) for updates in (3000, 6000))
        assert (later / first) ** (1 / 3000) == pytest.approx(modulus, abs=2e-4)
        assert (modulus < 1) == (share < 1)


def test_parts_that_are_not_late_let_the_rate_be_larger() -> None:
    late = [Recursion((Late(4, 1.0 - share),), share).largest_rate() for share in (0.0, 0.2, 0.4, 1.0)]
    assert late == sorted(late)
    assert late[-1] == pytest.approx(2.0)


def test_nothing_holds_where_the_curvature_is_not_positive() -> None:
    assert Recursion((Late(1, -1.0),)).largest_rate() == 0.0
    assert Recursion(()).largest_rate() == 0.0


def test_what_is_negative_in_part_still_has_a_limit() -> None:
    found = Recursion((Late(2, 1.5),), -0.5)
    assert 0 < found.largest_rate() < Recursion((Late(2, 1.0),)).largest_rate()
    assert math.isclose(found.modulus(found.largest_rate()), 1.0, abs_tol=1e-9)
