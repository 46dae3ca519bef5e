"""How far groups are from their mean, and how far they may be by what their updates add.

Does not know: losses, stages, messages.

With W the rows of all groups' weights, P the mixing matrix, and ``V(n) = W(n+1) - P_n W(n)``, ``P_n = P`` in rounds
that mix and 1 in others: V is what an update adds beside mixing, the steps u of ``combine-while-adapt``, P u of
``adapt-then-combine``.  Since P keeps the mean, what parts groups from it, D = W - mean, follows
``D(n+1) = P_n D(n) + (V(n) - mean)``.  Let d(n) be the root of the mean square of D over groups, weighed as their mean
is, v(n) that of V - mean, and lambda_2 the eigenvalue of P of second largest magnitude.  Then

    d(n+1) <= |lambda_2| d(n) + v(n)    in a round that mixes,    d(n+1) <= d(n) + v(n)    in another one,

and, summed up from groups that begin alike, of which every H-th round mixes,

    d(n) <= H max_i v(i) / (1 - |lambda_2|).

That is sharper than ``gamma max ||u|| / (1 - |lambda_2|)``, as v is at most max ||u_s||: what all groups do alike takes
nobody apart.  Nothing is said of gradients, so any optimizer, staleness, view and correction may make the steps.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from stalegrid.limits import Unknown, rounds_of
from stalegrid.plans import Plan


@dataclass(frozen=True)
class Mixed:
    """What is known of a mixing.

    Args:
        matrix: P, shape (S, S).
        weights: of the groups in their mean, which sum to 1, shape (S,).
        period: H.
        left: |lambda_2|.
    """

    matrix: Tensor
    weights: Tensor
    period: int
    left: float

    def mixes(self, version: int) -> bool:
        """Return whether the update that leads to a version mixes."""
        return version % self.period == 0

    def added(self, before: Tensor, after: Tensor, version: int) -> float:
        """Return v of the update that leads to a version.

        Args:
            before: the weights of all groups one version before, shape (S, n).
            after: those of the version.
            version: which.
        """
        return distance(after - (self.matrix @ before if self.mixes(version) else before), self.weights)

    def after_update(self, before: Tensor, added: float, version: int) -> float:
        """Return what the distance is at most at a version, by that of one before."""
        return (self.left if self.mixes(version) else 1.0) * distance(before, self.weights) + added

    def at_most(self, added: float) -> float:
        """Return what the distance is at most at any version, where no update adds more."""
        return self.period * added / (1.0 - self.left)


def distance(rows: Tensor, weights: Tensor) -> float:
    """Return the root of the mean square distance of rows from their mean.

    Args:
        rows: shape (S, n).
        weights: of the rows, which sum to 1, shape (S,).
    """
    return math.sqrt(float((weights @ (rows - weights @ rows).square()).sum()))


def weights_in_mean(plan: Plan) -> Tensor:
    """Return what groups weigh in their mean, as shares of 1, shape (S,)."""
    weights = torch.tensor(list(plan.turns.weights.values()), dtype=torch.float64)
    return weights / weights.sum()


def mixed_of(plan: Plan) -> Mixed | Unknown:
    """Return what a bound is made of, or why none is derived."""
    rounds = rounds_of(plan)
    if isinstance(rounds, Unknown):
        return rounds
    if rounds is None:
        why = "stay equal, by all-reduce" if plan.mixing.averages_gradients else "do not mix"
        return Unknown(f"none is needed or known: groups {why}")
    if rounds.lag:
        return Unknown(f"not derived where what groups mix is late (mixing.lag: {rounds.lag})")
    if len(rounds.matrices) > 1:
        return Unknown("not derived for a graph that is another one in each turn")
    if plan.schedule.begins or plan.membership.lost:
        return Unknown("not derived for groups that need not have begun alike")
    (matrix,) = rounds.matrices
    gap = plan.spectral_gap
    assert gap is not None
    return Mixed(torch.tensor(matrix), weights_in_mean(plan), rounds.period, 1.0 - gap)
