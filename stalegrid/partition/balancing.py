"""The cut of a list of costs into contiguous parts whose largest sum is smallest, exactly.

Does not know: models, tensors, where costs come from.
"""

from collections.abc import Callable, Sequence
from itertools import accumulate


def balance(
    costs: Sequence[float],
    parts: int,
    cuts: Sequence[int],
    toll: Callable[[int], float],
    allowed: Callable[[int, int], bool],
) -> list[int] | None:
    """Cut costs into contiguous parts so that the most expensive part is as cheap as possible.

    Args:
        costs: of each element.
        parts: how many.
        cuts: ascending positions, each in 1..len(costs)-1, at which a cut may lie.
        toll: what a part pays for having one of its ends at a cut.
        allowed: whether elements start..stop-1 may be a part.

    Returns:
        The ``parts - 1`` cuts, or None if there is no such cutting.
    """
    total = [0.0, *accumulate(costs)]
    price = {0: 0.0, len(costs): 0.0, **{c: toll(c) for c in cuts}}

    def cost(part: int, start: int, stop: int) -> float:
        return total[stop] - total[start] + price[start] + price[stop]

    return divide(len(costs), parts, cuts, cost, allowed)


def divide(
    length: int,
    parts: int,
    cuts: Sequence[int],
    cost: Callable[[int, int, int], float],
    allowed: Callable[[int, int], bool],
) -> list[int] | None:
    """Do the same where an element costs one part more than another.

    Dynamic programming over (part, cut): O(parts * cuts^2).

    Args:
        length: number of elements.
        parts: how many; each stays in its place.
        cuts: ascending positions, each in 1..length-1, at which a cut may lie.
        cost: of elements start..stop-1 as a part, given its place, start and stop.
        allowed: whether they may be one.

    Returns:
        The ``parts - 1`` cuts, or None if there is no such cutting.
    """
    ends = [*cuts, length]
    # best[j]: cheapest worst part, and the cuts, for the elements before end j in the parts so far.
    best: dict[int, tuple[float, list[int]]] = {e: (cost(0, 0, e), []) for e in ends if allowed(0, e)}
    for part in range(1, parts):
        longer: dict[int, tuple[float, list[int]]] = {}
        for stop in ends:
            options = (
                (max(worst, cost(part, start, stop)), [*chosen, start])
                for start, (worst, chosen) in best.items()
                if start < stop and allowed(start, stop)
            )
            # Of equal costs the first cuts, so that everybody who cuts alike costs cuts alike.
            if (found := min(options, default=None)) is not None:
                longer[stop] = found
        best = longer
    return best[length][1] if length in best else None
