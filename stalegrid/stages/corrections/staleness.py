"""The learning rate over the staleness.

Does not know: gradients.
"""

import math

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.site import Site


class InverseStaleness(Correction):
    """``lr / tau`` for ``tau >= 1``, lr for ``tau = 0`` (Zhang et al., arXiv 1511.05950, equation 6)."""

    def rate(self, update: Update) -> float:
        """Return ``1 / max(1, tau)``."""
        return 1.0 / max(1, update.staleness)


class ExponentialStaleness(Correction):
    """``lr exp(-beta tau)``, the exponential penalty of Chan and Lane (Interspeech 2014).

    Args:
        site: where it acts.
        beta: 0 or more; the default is ours.

    Raises:
        ConfigError: beta is negative.
    """

    def __init__(self, site: Site, beta: float = 0.1) -> None:
        super().__init__(site)
        if beta < 0:
            raise ConfigError(f"the exponential penalty has a beta of 0 or more (exponential-staleness={beta})")
        self._beta = beta

    def rate(self, update: Update) -> float:
        """Return ``exp(-beta tau)``."""
        return math.exp(-self._beta * update.staleness)


class StabilityRate(Correction):
    """The rate that is the same share of its limit of stability as without staleness: ``lr sin(pi / (2 (2 m + 1)))``.

    Delayed gradient descent ``w(n+1) = w(n) - lr a w(n-m)`` on a curvature a is stable if and only if
    ``lr a < 2 sin(pi / (2 (2 m + 1)))`` (Levin and May, A note on difference-delay equations, 1976), which is 2 where
    m = 0.  That is plain SGD whose gradients are those at the weights of the forward (``stashed``,
    ``double-buffered``): momentum, other optimizers and what other views make of a late gradient are not in it.
    """

    def rate(self, update: Update) -> float:
        """Return ``sin(pi / (2 (2 m + 1)))``, m the measured staleness of this update."""
        return math.sin(math.pi / (2 * (2 * update.staleness + 1)))


class PipeMareRate(Correction):
    """PipeMare's T1: ``lr / tau^p`` with ``p = 1 - min(n / anneal, 1)`` (Yang et al., arXiv 1910.05124, section 3.1).

    Args:
        site: where it acts.
        anneal: updates after which the rate is the schedule's own; None for a quarter of the run.

    Raises:
        ConfigError: no updates to anneal over.
    """

    def __init__(self, site: Site, anneal: float | None = None) -> None:
        super().__init__(site)
        self._anneal = max(1.0, site.updates / 4) if anneal is None else anneal
        if self._anneal < 1:
            raise ConfigError(f"pipemare-rate anneals over at least one update (pipemare-rate={anneal})")

    def rate(self, update: Update) -> float:
        """Return ``max(1, tau)^-p``."""
        p = 1 - min(update.index / self._anneal, 1.0)
        return float(max(1, update.staleness) ** -p)
