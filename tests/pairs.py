"""Combinations of choices, so few that a matrix is affordable: any two values of two choices meet in some of them."""

from collections.abc import Sequence
from itertools import combinations, product
from typing import Any


def pairs(*choices: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Return combinations of a value of each choice, in the order of the product, with all pairs of values among them.

    Args:
        choices: three or more; of two, pairs are the whole product.
    """
    places = list(product(*(range(len(choice)) for choice in choices)))
    left = {pair for place in places for pair in combinations(enumerate(place), 2)}
    taken = set()
    while left:
        best = max(places, key=lambda place: len(left.intersection(combinations(enumerate(place), 2))))
        taken.add(best)
        left -= set(combinations(enumerate(best), 2))
    return [tuple(choice[i] for choice, i in zip(choices, place, strict=True)) for place in sorted(taken)]
