from itertools import combinations, pairwise
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.partition.balancing import balance


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
