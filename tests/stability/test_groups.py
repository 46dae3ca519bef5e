"""Descent of groups that mix late, against modes that can be worked out by hand and against loops as written."""

import numpy as np
import pytest
from numpy.typing import NDArray

from stalegrid.stability import Late, Momentum, Recursion, Rounds, delayed_limit, left_by_mixing, rate_of_groups
from stalegrid.stability.groups import growth

PAIR = np.array([[0.5, 0.5], [0.5, 0.5]])
RING = np.array([[1, 1, 0, 1], [1, 1, 1, 0], [0, 1, 1, 1], [1, 0, 1, 1]]) / 3  # eigenvalues 1, 1/3, 1/3, -1/3
STAR = np.array([[0.25, 0.25, 0.25, 0.25], [0.25, 0.75, 0, 0], [0.25, 0, 0.75, 0], [0.25, 0, 0, 0.75]])


def descended(recursion: Recursion, rounds: Rounds, rate: float, updates: int) -> float:
    """Return the largest distance of a group in the last updates, from a start where they are unlike: the loop."""
    steps, groups, lag = recursion.steps, rounds.groups, rounds.lag
    w: list[NDArray[np.float64]] = [np.linspace(1.0, 2.0, groups) ** 2] * (recursion.delay + 1)
    v, shared = [np.zeros(groups)] * (recursion.delay + 1), [w[0]] * (lag + 1)
    largest = 0.0
    for n in range(updates):
        q = recursion.fresh * w[-1]
        for part in recursion.late:
            q = q + part.curvature * (w[-1 - part.delay] - rate * part.ahead * v[-1 - part.delay])
        momentum = steps.momentum * v[-1] + (1 - steps.dampening) * q
        stepped = w[-1] - rate * (q + steps.momentum * momentum if steps.nesterov else momentum)
        shared = [*shared[1:], stepped if rounds.adapt_first else w[-1]]
        new = stepped.copy()
        if (n + 1) % rounds.period == 0:
            shares = rounds.matrices[((n + 1) // rounds.period - 1) % len(rounds.matrices)]
            for s in range(groups):
                for r in range(groups):
                    own = shared[0][s] if rounds.delta else shared[-1][s]
                    new[s] += shares[s, r] * (shared[0][r] - own) if r != s else 0.0
        w, v = [*w[1:], new], [*v[1:], momentum]
        if n >= updates - 50:
            largest = max(largest, float(np.abs(new).max()))
    return largest


CASES = [
    (Recursion((Late(0, 1.0),)), Rounds((RING,))),
    (Recursion((Late(2, 1.0),)), Rounds((RING,), lag=2)),
    (Recursion((Late(1, 1.0),), 0.1, Momentum(momentum=0.5)), Rounds((STAR,), lag=1, period=2)),
    (Recursion((Late(1, 1.0),), 0.0, Momentum(momentum=0.9, nesterov=True)), Rounds((STAR,), adapt_first=True, lag=3)),
    (Recursion((Late(2, 1.0, 2),), 0.0, Momentum(momentum=0.9)), Rounds((RING,), adapt_first=True, lag=1)),
    (Recursion((Late(1, 1.0),)), Rounds((0.5 * RING + 0.5 * np.eye(4),), lag=1, delta=True)),
    (Recursion((Late(1, 1.0),)), Rounds((0.5 * RING + 0.5 * np.eye(4),), True, 2, 1, True)),
    (Recursion((Late(1, 1.0),)), Rounds((PAIR, 0.5 * PAIR + 0.5 * np.eye(2)), period=2, lag=1)),
]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_loops_as_written_grow_and_shrink_as_the_map_says(case: int) -> None:
    recursion, rounds = CASES[case]
    limit = rate_of_groups(recursion, rounds)
    assert limit > 0
    for share in (0.95, 1.05):
        expected = growth(recursion, rounds, share * limit)
        first, later = (descended(recursion, rounds, share * limit, n) for n in (1500, 3000))
        assert (later / first) ** (1 / 1500) == pytest.approx(expected, abs=5e-4)
        assert (expected < 1) == (share < 1)


def test_groups_that_mix_before_their_step_bear_less_by_the_smallest_eigenvalue() -> None:
    # e(n+1) = (lambda - gamma a) e(n), so gamma a < 1 + lambda.
    assert rate_of_groups(Recursion((Late(0, 1.0),)), Rounds((RING,))) == pytest.approx(2 / 3, rel=1e-6)
    assert rate_of_groups(Recursion((Late(0, 1.0),)), Rounds((PAIR,))) == pytest.approx(1.0, rel=1e-6)


def test_groups_that_mix_after_their_step_bear_what_one_does() -> None:
    # e(n+1) = lambda (1 - gamma a) e(n).
    assert rate_of_groups(Recursion((Late(0, 1.0),)), Rounds((RING,), adapt_first=True)) == pytest.approx(2.0, rel=1e-6)


def test_late_groups_that_mix_after_their_step_may_bear_less_than_one_does() -> None:
    # e(n+1) = lambda (e(n) - gamma a e(n-1)), lambda = -0.8: z = -1 is a root where 1 + lambda + lambda gamma a = 0.
    swapping = np.array([[0.1, 0.9], [0.9, 0.1]])
    found = rate_of_groups(Recursion((Late(1, 1.0),)), Rounds((swapping,), adapt_first=True))
    assert found == pytest.approx(0.25, rel=1e-6)


def test_what_is_late_pulls_groups_back_even_where_they_are_equal() -> None:
    recursion = Recursion((Late(1, 1.0),), 0.1, Momentum(momentum=0.5))
    current, delta = (rate_of_groups(recursion, Rounds((STAR,), False, 2, 1, rule)) for rule in (False, True))
    assert current > 1.1 * recursion.largest_rate()
    assert delta < recursion.largest_rate() * (1 + 1e-6)


@pytest.mark.parametrize("rounds", [Rounds((np.eye(1),)), Rounds((np.eye(1),), lag=2)])
def test_one_group_bears_what_it_does_by_itself(rounds: Rounds) -> None:
    for delay in range(4):
        assert rate_of_groups(Recursion((Late(delay, 1.0),)), rounds) == pytest.approx(delayed_limit(delay), rel=1e-6)


@pytest.mark.parametrize("lag", range(4))
def test_without_gradients_own_current_comes_together_whatever_the_lag(lag: int) -> None:
    for matrix in (PAIR, RING, STAR):
        assert left_by_mixing(Rounds((matrix,), lag=lag)) < 1


def test_groups_that_keep_nothing_of_their_own_do_not_come_together_with_a_lag() -> None:
    others = (np.ones((3, 3)) - np.eye(3)) / 2
    assert left_by_mixing(Rounds((others,))) == pytest.approx(0.5)
    assert left_by_mixing(Rounds((others,), lag=1)) == pytest.approx(1.0)
    assert rate_of_groups(Recursion((Late(0, 1.0),)), Rounds((others,), lag=1)) == 0.0


@pytest.mark.parametrize("lag", range(4))
def test_the_rule_delta_has_the_limit_of_late_descent(lag: int) -> None:
    for share, together in ((0.98, True), (1.02, False)):
        gap = share * delayed_limit(lag) / 2  # 1 - lambda is twice what a group gives away
        matrix = np.array([[1 - gap, gap], [gap, 1 - gap]])
        assert (left_by_mixing(Rounds((matrix,), lag=lag, delta=True)) < 1) == together
