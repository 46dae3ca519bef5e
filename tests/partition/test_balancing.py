from itertools import combinations, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.partition.balancing import balance, divide


def free(cut: int) -> float:
    return 0.0


def anything(start: int, stop: int) -> bool:
    return True


def test_a_cut_in_the_middle() -> None:
    assert balance([1, 1, 1, 3], 2, [1, 2, 3], free, anything) == [3]
    assert balance([5, 1, 1, 1, 5], 3, [1, 2, 3, 4], free, anything) == [1, 4]


def test_one_part_needs_no_cut() -> None:
    assert balance([1, 2], 1, [1], free, anything) == []


def test_tolls_move_a_cut() -> None:
    assert balance([2, 2, 2], 2, [1, 2], lambda cut: 9.0 if cut == 1 else 0.0, anything) == [2]


def test_both_ends_of_a_part_pay() -> None:
    # Parts cost 1 + 10, 10 + 5 + 0 and 6 + 0, or 4 + 0, 0 + 2 + 0 and 6 + 0.
    assert balance([1, 3, 2, 6], 3, [1, 2, 3], lambda cut: 10.0 if cut == 1 else 0.0, anything) == [2, 3]


def test_more_parts_than_cuts_allow_is_none() -> None:
    assert balance([1, 1, 1], 3, [1], free, anything) is None
    assert balance([1], 2, [], free, anything) is None


def test_parts_that_are_not_allowed_are_none() -> None:
    assert balance([1, 1], 2, [1], free, lambda start, stop: stop - start == 2) is None
    assert balance([1, 1], 1, [1], free, lambda start, stop: False) is None


@settings(deadline=None)
@given(data=st.data(), costs=st.lists(st.integers(0, 20), min_size=1, max_size=9), parts=st.integers(1, 5))
def test_the_worst_part_is_as_cheap_as_brute_force_finds(data: Any, costs: list[int], parts: int) -> None:
    # Integers, so that sums are exact whatever their order.
    positions = list(range(1, len(costs)))
    cuts = sorted(data.draw(st.sets(st.sampled_from(positions)))) if positions else []
    tolls = {c: data.draw(st.integers(0, 10)) for c in cuts}
    spans = list(combinations(range(len(costs) + 1), 2))
    forbidden = data.draw(st.sets(st.sampled_from(spans), max_size=6))

    def worst(chosen: tuple[int, ...]) -> float | None:
        bounds = [0, *chosen, len(costs)]
        pairs = list(pairwise(bounds))
        if forbidden.intersection(pairs):
            return None
        return max(sum(costs[a:b]) + tolls.get(a, 0) + tolls.get(b, 0) for a, b in pairs)

    options = [value for chosen in combinations(cuts, parts - 1) if (value := worst(chosen)) is not None]
    found = balance(costs, parts, cuts, tolls.__getitem__, lambda start, stop: (start, stop) not in forbidden)
    if found is None:
        assert options == []
    else:
        assert len(found) == parts - 1
        assert set(found) <= set(cuts)
        assert found == sorted(set(found))
        assert worst(tuple(found)) == min(options)


def test_a_part_that_is_three_times_as_fast_has_three_times_as_much() -> None:
    def cost(part: int, start: int, stop: int) -> float:
        return (stop - start) * (1, 3)[part]

    assert divide(8, 2, range(1, 8), cost, anything) == [6]
    assert divide(8, 2, range(1, 8), lambda part, start, stop: cost(1 - part, start, stop), anything) == [2]


@settings(deadline=None)
@given(data=st.data(), length=st.integers(1, 8), parts=st.integers(1, 4))
def test_the_worst_of_unequal_parts_is_as_cheap_as_brute_force_finds(data: Any, length: int, parts: int) -> None:
    positions = list(range(1, length))
    cuts = sorted(data.draw(st.sets(st.sampled_from(positions)))) if positions else []
    spans = list(combinations(range(length + 1), 2))
    # Any price at all: of a part, its place and both of its ends.
    prices = {(part, *span): data.draw(st.integers(0, 30)) for part in range(parts) for span in spans}
    forbidden = data.draw(st.sets(st.sampled_from(spans), max_size=4))
    options: dict[tuple[int, ...], int] = {}
    for chosen in combinations(cuts, parts - 1):
        pairs = list(pairwise([0, *chosen, length]))
        if not forbidden.intersection(pairs):
            options[chosen] = max(prices[part, *span] for part, span in enumerate(pairs))
    found = divide(length, parts, cuts, lambda *of: prices[of], lambda start, stop: (start, stop) not in forbidden)
    if found is None:
        assert not options
    else:
        assert options[tuple(found)] == min(options.values())
