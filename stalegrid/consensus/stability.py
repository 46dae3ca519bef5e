"""Whether mixing with what is late brings groups together, or drives them apart.

Does not know: topologies by name, gradients, how anything is mixed.

Under the lag rule ``delta`` a group adds what mixing would have changed at a snapshot, ``w <- w + mix(snap) - snap``.
Along an eigenvector of P with eigenvalue lambda the distance e to the mean then follows, with a round at every update,
``e(n+1) = e(n) - (1 - lambda) e(n - c)``: gradient descent on a curvature of 1 - lambda with a delay of c, which is
stable if and only if ``0 < 1 - lambda < 2 sin(pi / (2 (2c + 1)))`` (Levin and May 1976).  Where rounds are H updates
apart, e moves only in rounds, and between a snapshot and the round that adds it lie floor(c / H) others: that is the
delay then, and none where H > c.
"""

from collections.abc import Iterable

from stalegrid.stability import delayed_limit

_ROUNDING = 1e-9  # eigenvalues of matrices whose sums may be off by that much


def delta_limit(lag: int, period: int) -> float:
    """Return what 1 - lambda must be smaller than under the lag rule ``delta``.

    Args:
        lag: c, updates from a snapshot to the round that adds what it makes.
        period: H, updates from one round to the next.
    """
    return delayed_limit(lag // period)


def stable_delta(eigenvalues: Iterable[float], lag: int, period: int) -> bool:
    """Return whether groups come together under the lag rule ``delta``.

    Args:
        eigenvalues: of P, real, as those of every static mixing matrix are; the 1 of the mean is left out by itself.
        lag: c, updates from a snapshot to the round that adds what it makes.
        period: H, updates from one round to the next.
    """
    limit = delta_limit(lag, period)
    return all(1.0 - value < limit - _ROUNDING for value in eigenvalues)
