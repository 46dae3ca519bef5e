"""Late gradient descent of groups that mix their parameters, and the largest rate at which they come to rest together.

Does not know: topologies by name, stages, how anything is mixed.

All groups descend on one and the same quadratic, along one direction of it (:mod:`stalegrid.stability.recursion`), and
mix in the rounds n with ``(n + 1) mod H = 0``.  With w' what the optimizer's step makes of w(n), and D the diagonal
of P, each takes, of what is shared before the step or after it (``x = w`` or ``x = w'``),

* ``w(n+1) = w' + (P - D) x(n - c) - (1 - D) x(n)``, where its own weights are those of now, or
* ``w(n+1) = w' + (P - 1) x(n - c)``, where what mixing would have changed at a snapshot is added (rule ``delta``).

This is a linear map from the vectors of all groups, those of the last updates included, to the next ones; where there
are rounds without mixing, or another P in each, the product of the maps of a cycle counts.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from stalegrid.stability.recursion import Recursion

Matrix = NDArray[np.floating[Any]]

_STEPS = 48  # rates that are tried on the way up, so that the first crossing is found
_HALVINGS = 30
_ROUNDING = 1e-9  # a modulus that is as near to 1 is not below it


@dataclass(frozen=True)
class Rounds:
    """When groups mix what.

    Args:
        matrices: P by turn, repeated in a cycle, each (S, S) with rows that sum to 1.
        adapt_first: whether it is shared after the step, and not before.
        period: H, updates from one round to the next.
        lag: c, updates by which what is mixed is late.
        delta: whether what mixing would have changed at a snapshot is added.
    """

    matrices: tuple[Matrix, ...]
    adapt_first: bool = False
    period: int = 1
    lag: int = 0
    delta: bool = False

    @property
    def groups(self) -> int:
        """S."""
        return len(self.matrices[0])


def left_by_mixing(rounds: Rounds) -> float:
    """Return what an update leaves of the groups' distances from each other without gradients, in the end.

    Returns:
        Above 0; they come together if it is below 1.
    """
    values = np.linalg.eigvals(_cycle(Recursion(()), rounds, 0.0))
    # The 1 of equal groups, which stay where they are, is no distance.
    distances = np.delete(values, np.abs(values - 1).argmin())
    return _an_update(np.abs(distances).max(initial=0.0), rounds)


def rate_of_groups(recursion: Recursion, rounds: Rounds) -> float:
    """Return the smallest rate above 0 at which groups do not come to rest together.

    Args:
        recursion: of each of them.
        rounds: of their mixing.

    Returns:
        0 where mixing alone drives them apart, or the curvature is not positive.  It may be above that of one group by
        itself: where one's own weights are those of now, what is late pulls even groups that are equal back.
    """
    highest = recursion.largest_rate()
    if not highest or math.isinf(highest):
        return highest
    if left_by_mixing(rounds) >= 1 - _ROUNDING:
        return 0.0
    # There is one, since the map grows with the rate without bound.
    high = next(rate for step in itertools.count(1) if not _rests(recursion, rounds, rate := highest * step / _STEPS))
    low = high - highest / _STEPS
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (middle, high) if _rests(recursion, rounds, middle) else (low, middle)
    return (low + high) / 2


def growth(recursion: Recursion, rounds: Rounds, rate: float) -> float:
    """Return by what the distance to the minimum grows or shrinks in an update, in the end."""
    largest = np.abs(np.linalg.eigvals(_cycle(recursion, rounds, rate))).max()
    return _an_update(largest, rounds)


def _rests(recursion: Recursion, rounds: Rounds, rate: float) -> bool:
    return growth(recursion, rounds, rate) < 1 - _ROUNDING


def _an_update(largest: Any, rounds: Rounds) -> float:
    """Return what a whole cycle does, by update."""
    return math.pow(float(largest), 1.0 / _length(rounds))


def _length(rounds: Rounds) -> int:
    return rounds.period * len(rounds.matrices)


def _cycle(recursion: Recursion, rounds: Rounds, rate: float) -> Matrix:
    """Return the map of a whole cycle of rounds."""
    found: Matrix | None = None
    for update in range(_length(rounds)):
        due = (update + 1) % rounds.period == 0
        turn = (update + 1) // rounds.period - 1
        step = _update(recursion, rounds, rate, rounds.matrices[turn] if due else None)
        found = step if found is None else step @ found
    assert found is not None
    return found


def _update(recursion: Recursion, rounds: Rounds, rate: float, shares: Matrix | None) -> Matrix:
    """Return the map of an update.

    The vectors of all groups that it maps are ``w(n) .. w(n - D)``, ``v(n) .. v(n - D)`` and, of what was shared,
    ``x(n - 1) .. x(n - c)``.
    """
    groups, delay, lag = rounds.groups, recursion.delay, rounds.lag
    count = 2 * (delay + 1) + lag
    one = np.eye(groups)

    def take(place: int) -> Matrix:
        """Return what reads one of the vectors."""
        return np.kron(np.eye(count)[[place]], one)

    def weights(age: int) -> Matrix:
        return take(age)

    def velocity(age: int) -> Matrix:
        return take(delay + 1 + age)

    def past(age: int) -> Matrix:
        return take(2 * (delay + 1) + age - 1)

    steps = recursion.steps
    gradient = recursion.fresh * weights(0)
    for part in recursion.late:
        seen = weights(part.delay) - rate * part.ahead * velocity(part.delay)
        gradient = gradient + part.curvature * seen
    momentum = steps.momentum * velocity(0) + (1 - steps.dampening) * gradient
    stepped = weights(0) - rate * (gradient + steps.momentum * momentum if steps.nesterov else momentum)
    shared = stepped if rounds.adapt_first else weights(0)
    mixed = stepped
    if shares is not None:
        late = past(lag) if lag else shared
        own = one if rounds.delta else np.diag(np.diag(shares))
        mixed = stepped + (shares - own) @ late - (one - own) @ shared
    rows = [mixed, *map(weights, range(delay)), momentum, *map(velocity, range(delay))]
    if lag:
        rows += [shared, *(past(age) for age in range(1, lag))]
    return np.concatenate(rows)
