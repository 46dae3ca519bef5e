"""Pairs of groups that are drawn anew at every mixing turn: each takes half of its partner.

Does not know: torch, messages, how the weighted sum is carried out.

All groups draw alike, from the seed of the run and the turn.  With an odd number of them one has no partner.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass, field

import numpy as np

from stalegrid.consensus.matrices import Matrix
from stalegrid.errors import ConfigError
from stalegrid.seeds import derive

RANDOM_PAIRS = "random-pairs"


@dataclass(frozen=True)
class RandomPairs:
    """Who mixes with whom, read like a :class:`~stalegrid.consensus.matrices.MixingMatrix`.

    Args:
        groups: S.
        seed: of the run.
    """

    groups: int
    seed: int
    sizes: tuple[int, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "sizes", (1,) * self.groups)

    @property
    def matrices(self) -> tuple[Matrix, ...]:
        """The matrices (S, S) of the first turns, in as many as there are groups."""
        return tuple(map(self.weights, range(self.groups)))

    def weights(self, turn: int) -> Matrix:
        """Return the matrix (S, S) of a mixing turn."""
        matrix = np.eye(self.groups)
        for a, b in self._pairs(turn):
            matrix[[a, a, b, b], [a, b, a, b]] = 0.5
        return matrix

    def sources(self, group: int, turn: int) -> tuple[int, ...]:
        """Return the partner of a group in a turn, if it has one."""
        return tuple(a + b - group for a, b in self._pairs(turn) if group in (a, b))

    targets = sources

    def neighbours(self, group: int) -> tuple[int, ...]:
        """Return the other groups, any of which may be drawn."""
        return tuple(r for r in range(self.groups) if r != group)

    @property
    def spectral_gap(self) -> float:
        """How much closer to their mean the groups come in a turn, in the mean square: 0 never, 1 at once.

        A turn is a projection, so what it leaves of the square of a distance is, in expectation, the second largest
        eigenvalue of ``I + q/2 ((11^T - I) / (S - 1) - I)``, where q is the probability to have a partner.
        """
        others = self.groups - 1
        if not others:
            return 1.0
        paired = (self.groups - self.groups % 2) / self.groups
        return 1.0 - math.sqrt(1.0 - paired / 2 * (1.0 + 1.0 / others))

    def without(self, gone: Collection[int]) -> "RandomPairs":
        """Refuse to go on without some.

        Raises:
            ConfigError: always.
        """
        raise ConfigError(
            f"pairs that are drawn anew in each turn cannot close around groups that are gone (topology: "
            f"{RANDOM_PAIRS}, gone: {sorted(gone)}); take one that stays, such as a ring"
        )

    def _pairs(self, turn: int) -> list[tuple[int, int]]:
        order = sorted(range(self.groups), key=lambda group: derive(self.seed, "pairs", turn, group))
        return list(zip(order[::2], order[1::2], strict=False))
