from collections.abc import Callable
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.timing.tune import LONGEST, STEPS, least_staleness, scaled

Speed = Callable[[list[int]], float]


def checked(speed: Speed) -> Speed:
    """Refuse what no program runs: staleness that increases or is negative."""

    def wrapped(staleness: list[int]) -> float:
        assert all(a >= b for a, b in pairwise(staleness)), staleness
        assert staleness[-1] >= 0
        return speed(staleness)

    return wrapped


def needing(*least: int) -> Speed:
    """Return a speed that is best where every stage is at least so stale."""
    return lambda staleness: 1.0 if all(m >= n for m, n in zip(staleness, least, strict=True)) else 2.0


def falling(stages: int, most: int) -> st.SearchStrategy[list[int]]:
    """Staleness within what is tried: it never increases, and the last stage has none."""
    ahead = st.lists(st.integers(0, most), min_size=stages - 1, max_size=stages - 1)
    return ahead.map(lambda m: [*sorted(m, reverse=True), 0])


@pytest.mark.parametrize(
    ("stages", "factor", "expected"),
    [(4, 0, [0, 0, 0, 0]), (4, 1, [3, 2, 1, 0]), (4, 2, [6, 4, 2, 0]), (4, 0.25, [1, 1, 1, 0]), (1, 8, [0])],
)
def test_a_multiple_is_rounded_up(stages: int, factor: float, expected: list[int]) -> None:
    assert scaled(stages, factor) == expected


@pytest.mark.parametrize("stages", range(1, 6))
def test_where_staleness_does_not_matter_or_slows_down_there_is_none(stages: int) -> None:
    assert least_staleness(stages, checked(lambda m: 5.0), 0.0) == [0] * stages
    assert least_staleness(stages, checked(lambda m: 5.0 + sum(m)), 0.02) == [0] * stages


def test_a_single_stage_has_none() -> None:
    assert least_staleness(1, checked(needing(0)), 0.5) == [0]


def test_the_longest_that_is_tried_is_taken_where_only_that_is_good() -> None:
    longest = scaled(4, LONGEST)
    assert least_staleness(4, checked(lambda m: 1.0 if m == longest else 2.0), 0.02) == longest


@settings(deadline=None, max_examples=200)
@given(data=st.data(), stages=st.integers(2, 3))
def test_of_two_or_three_stages_each_gets_just_what_it_needs(data: st.DataObject, stages: int) -> None:
    least = data.draw(falling(stages, LONGEST))
    assert least_staleness(stages, checked(needing(*least)), 0.02) == least


@settings(deadline=None, max_examples=200)
@given(
    data=st.data(),
    stages=st.integers(1, 6),
    weights=st.lists(st.integers(1, 5), min_size=6, max_size=6),
    within=st.sampled_from([0.0, 0.02, 0.1, 0.5]),
)
def test_what_is_found_is_within_the_share_and_never_increases(
    data: st.DataObject, stages: int, weights: list[int], within: float
) -> None:
    asked = data.draw(falling(stages, 2 * stages))

    def speed(staleness: list[int]) -> float:
        missing = (w * max(0, n - m) for w, n, m in zip(weights, asked, staleness, strict=False))
        return 1.0 + sum(missing) / 10

    found = least_staleness(stages, checked(speed), within)
    assert all(a >= b for a, b in pairwise(found))
    assert speed(found) * (1.0 - within) <= speed(scaled(stages, LONGEST)) * (1 + 1e-12)
    assert all(m <= most for m, most in zip(found, scaled(stages, LONGEST), strict=True))


def test_a_larger_share_buys_less_staleness() -> None:
    def speed(m: list[int]) -> float:
        return 1.0 + 0.1 * max(0, 4 - m[0])

    assert [least_staleness(2, checked(speed), share)[0] for share in (0.0, 0.1, 0.2, 0.3)] == [4, 3, 2, 0]


def test_the_share_is_one_of_the_throughput() -> None:
    def speed(m: list[int]) -> float:
        return 1.25 if m[0] < 3 else 1.0  # 1/1.25 is 0.8 of the best throughput

    assert least_staleness(2, checked(speed), 0.2) == [0, 0]
    assert least_staleness(2, checked(speed), 0.199) == [3, 0]


def test_the_first_stage_gives_back_first() -> None:
    # Of the least multiple that is good, either stage may give back one, but not both.
    assert scaled(3, 2) == [4, 2, 0]
    assert scaled(3, 2.25) == [5, 3, 0]
    assert least_staleness(3, checked(lambda m: 1.0 if m[0] + m[1] >= 7 else 2.0), 0.0) == [4, 3, 0]


def test_multiples_are_tried_in_small_steps() -> None:
    assert scaled(5, 0.5) == [2, 2, 1, 1, 0]
    assert least_staleness(5, checked(lambda m: 1.0 if sum(m) >= 6 else 2.0), 0.02) == [2, 2, 1, 1, 0]


def test_few_speeds_are_asked_for() -> None:
    asked: list[list[int]] = []

    def speed(staleness: list[int]) -> float:
        asked.append(staleness)
        return needing(14, 12, 10, 8, 6, 4, 2, 0)(staleness)

    assert least_staleness(8, checked(speed), 0.02) == [14, 12, 10, 8, 6, 4, 2, 0]
    assert len({tuple(staleness) for staleness in asked}) == len(asked)
    assert len(asked) < 1 + (LONGEST * STEPS).bit_length() + 8 * 3


def test_no_stage_can_give_back_any_more() -> None:
    speed, asked = checked(needing(2, 2, 2, 0)), []

    def noted(staleness: list[int]) -> float:
        asked.append(tuple(staleness))
        return speed(staleness)

    found = least_staleness(4, noted, 0.02)
    assert len(set(asked)) == len(asked)
    for k, m in enumerate(found[:-1]):
        if m > found[k + 1]:
            assert speed([*found[:k], m - 1, *found[k + 1 :]]) > 1.0
