"""How an epoch is divided, held against a loop over its samples."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stalegrid.data.epochs import Division


def plain(samples: int, together: int, drop_last: bool) -> list[list[int]]:
    """Return the samples of each update, as a loop would take them."""
    found = [list(range(i, min(i + together, samples))) for i in range(0, samples, together)]
    return [update for update in found if len(update) == together or not drop_last]


@given(st.integers(1, 60), st.integers(1, 20), st.booleans(), st.integers(1, 70))
def test_a_division_is_the_plain_loop(samples: int, together: int, drop_last: bool, updates: int) -> None:
    division, expected = Division(samples, together, drop_last), plain(samples, together, drop_last)
    assert division.updates == len(expected)
    assert division.whole == sum(len(update) == together for update in expected)
    if not expected:
        assert division.rest == 0
        return
    endless = list(itertools.islice(itertools.cycle(expected), updates))
    spans = [division.span(n) for n in range(updates)]
    assert [list(range(start, start + size)) for start, size in spans] == endless
    by_size = [{len(endless[n]) for n in those} for those in division.of_a_size(updates)]
    assert all(len(sizes) == 1 for sizes in by_size)
    assert sorted(set().union(*by_size)) == sorted({len(update) for update in endless})
    assert sorted(set().union(*division.of_a_size(updates))) == [
        n for n in range(updates) if n < division.whole or spans[n][1] < together
    ]


@pytest.mark.parametrize(
    ("drop_last", "updates", "expected"),
    [
        (False, 99, [range(2), range(2, 99, 3)]),
        (False, 2, [range(2)]),
        (False, 3, [range(2), range(2, 3, 3)]),
        (True, 99, [range(2)]),
    ],
)
def test_whole_updates_come_before_the_last_ones(drop_last: bool, updates: int, expected: list[range]) -> None:
    assert Division(10, 4, drop_last).of_a_size(updates) == expected
