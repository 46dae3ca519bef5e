"""Gradient descent on a quadratic whose gradient is late, and the largest rate at which it comes to rest.

Does not know: where curvature and delays come from, groups.

Along one direction of curvature a, with torch's SGD (momentum mu, dampening tau) at a constant rate gamma::

    q(n)   = sum_i a_i w_i(n) + r w(n)            w_i(n) = w(n - d_i) - gamma s_i v(n - d_i)
    v(n+1) = mu v(n) + (1 - tau) q(n)
    w(n+1) = w(n) - gamma v(n+1)                  with Nesterov's momentum  w(n) - gamma (q(n) + mu v(n+1))

where the curvature is parted by how late what it multiplies is: a_i by d_i updates, r not at all (weight decay, for
one), and a forward may be at weights that are predicted s_i steps ahead.  With z for one update later, all of it is

    A(z) + gamma B(z) = 0,    A = (z - 1)(z - mu) z^D,
    B = (1 - tau)(z - 1) sum_i a_i s_i z^(D - d_i) + C (sum_i a_i z^(D - d_i) + r z^D),

C = (1 - tau) z, with Nesterov's momentum (1 + mu) z - mu, and D the largest delay.  It comes to rest if and only if all
roots lie within the unit circle.  They do for a small rate where the curvature is positive, and leave it first at the
smallest positive rate at which one lies upon it: ``gamma = -A(z) / B(z)`` is real there, for some ``|z| = 1``.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]
Polynomial = Numbers
"""Coefficients, those of the highest powers first."""

_GRID = 128  # points of half the circle for every degree; a crossing between two of them shows as a change of sign
_HALVINGS = 60


def delayed_limit(delay: int) -> float:
    """Return what rate times curvature must be smaller than, without momentum: ``2 sin(pi / (2 (2 d + 1)))``.

    Args:
        delay: d, updates by which the gradient is late (Levin and May 1976).
    """
    return 2.0 * math.sin(math.pi / (2 * (2 * delay + 1)))


@dataclass(frozen=True, kw_only=True)
class Momentum:
    """How ``torch.optim.SGD`` makes a step of gradients.

    Args:
        momentum: mu.
        dampening: tau; 0 with Nesterov's.
        nesterov: whether it is Nesterov's.
    """

    momentum: float = 0.0
    dampening: float = 0.0
    nesterov: bool = False


@dataclass(frozen=True)
class Late:
    """A part of the gradient that is late.

    Args:
        delay: d, in updates.
        curvature: a, the gradient of this part by the weights it is at.
        ahead: s, steps that these were predicted ahead by the momentum.
    """

    delay: int
    curvature: float
    ahead: int = 0


@dataclass(frozen=True)
class Recursion:
    """Descent along one direction.

    Args:
        late: parts of the gradient that are late; parts of delay 0 may be among them.
        fresh: r, curvature of the part at the weights of now.
        steps: what the optimizer makes of gradients.
    """

    late: tuple[Late, ...]
    fresh: float = 0.0
    steps: Momentum = Momentum()

    @property
    def curvature(self) -> float:
        """Of all parts together."""
        return self.fresh + sum(part.curvature for part in self.late)

    @property
    def delay(self) -> int:
        """D, the largest."""
        return max((part.delay for part in self.late), default=0)

    def at_once(self) -> "Recursion":
        """Return the same descent with nothing late."""
        return Recursion((), self.curvature, self.steps)

    def polynomials(self) -> tuple[Polynomial, Polynomial]:
        """Return A and B, of one length, whose sum with the rate before B has the roots."""
        mu, tau, delay = self.steps.momentum, self.steps.dampening, self.delay
        late = _powers(delay, ((part.delay, part.curvature) for part in self.late))
        late[0] += self.fresh
        ahead = _powers(delay, ((part.delay, part.curvature * part.ahead) for part in self.late))
        step = [1 + mu, -mu] if self.steps.nesterov else [1 - tau, 0.0]
        still = np.polymul(np.poly([1.0, mu]), _powers(delay, [(0, 1.0)]))
        moved = np.polyadd(np.polymul(step, late), np.polymul([1 - tau, tau - 1], ahead))
        return still, np.concatenate([np.zeros(len(still) - len(moved)), moved])

    def modulus(self, rate: float) -> float:
        """Return that of the largest root, by which the distance grows or shrinks in an update, in the end."""
        still, moved = self.polynomials()
        return float(np.abs(np.roots(still + rate * moved)).max())

    def largest_rate(self) -> float:
        """Return the smallest rate above 0 at which it does not come to rest: all below are stable.

        Returns:
            0 where the curvature of all parts together is not positive.
        """
        if self.curvature <= 0:
            return 0.0
        still, moved = self.polynomials()

        def scaled(angle: Numbers) -> NDArray[np.complex128]:
            """Return -A/B on the circle, times |B|^2, which has no poles."""
            z = np.exp(1j * angle)
            found: NDArray[np.complex128] = -np.polyval(still, z) * np.conj(np.polyval(moved, z))
            return found

        angles = np.linspace(0.0, math.pi, _GRID * len(still) + 1)[1:-1]
        # At -1 both are real anyway: a crossing of its own.
        crossings = np.array([*_zeros(lambda angle: scaled(angle).imag, angles), math.pi])
        with np.errstate(divide="ignore", invalid="ignore"):
            rates = scaled(crossings).real / np.abs(np.polyval(moved, np.exp(1j * crossings))) ** 2
        return float(min(rates[rates > 0], default=math.inf))


def _powers(degree: int, parts: Iterable[tuple[int, float]]) -> Polynomial:
    """Return the sum of ``x z^(degree - d)`` over pairs (d, x)."""
    found = np.zeros(degree + 1)
    for delay, value in parts:
        found[delay] += value
    return found


def _zeros(function: Callable[[Numbers], Numbers], points: Numbers) -> list[float]:
    """Return where a function changes its sign between neighbouring points."""
    signs = np.sign(function(points))
    changes = np.flatnonzero(signs[1:] != signs[:-1])
    low, high, sign = points[changes], points[changes + 1], signs[changes]
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        same = np.sign(function(middle)) == sign
        low, high = np.where(same, middle, low), np.where(same, high, middle)
    return list(map(float, (low + high) / 2))
