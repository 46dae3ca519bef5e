"""Any two values of two choices meet, in far fewer combinations than there are."""

from itertools import combinations, product

import pytest

from tests.pairs import pairs


@pytest.mark.parametrize("sizes", [(2, 2, 2), (3, 3, 3), (8, 2, 6), (7, 4, 2), (3, 2, 3, 4, 2)], ids=str)
def test_any_two_values_of_two_choices_meet(sizes: tuple[int, ...]) -> None:
    choices = [[f"{place}{value}" for value in range(size)] for place, size in enumerate(sizes)]
    found = pairs(*choices)
    assert set(found) <= set(product(*choices))
    assert found == sorted(set(found))
    for a, b in combinations(choices, 2):
        assert all(any({one, other} <= set(combination) for combination in found) for one, other in product(a, b))
    largest, second = sorted(sizes)[:-3:-1]
    assert len(found) <= 1.5 * largest * second
    assert len(found) < len(list(product(*choices)))
