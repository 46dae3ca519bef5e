"""A first-order estimate of the gradient at the weights of now, from one at the weights of the forward.

Does not know: schedules, optimizers.
"""

from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.site import Site

RHO = 0.95
"""How slowly the mean square of the adaptive form forgets."""
SMALL = 1e-7


class DelayCompensation(Correction):
    """DC-ASGD (Zheng et al., arXiv 1609.08326, equation 10): ``g + lam g g (w_now - w_forward)``.

    Args:
        site: where it acts.
        lam: lambda, the strength.

    Raises:
        ConfigError: it is negative.
    """

    needs_forwarded = True

    def __init__(self, site: Site, lam: float = 0.04) -> None:
        super().__init__(site)
        if lam < 0:
            raise ConfigError(f"delay compensation has a strength of 0 or more (lambda: {lam})")
        self._lam = lam

    def correct(self, update: Update) -> None:
        """Add the compensation to every gradient."""
        for p in self.site.weights.trainable():
            if p.grad is not None:
                strength = self._strength(p, p.grad)
                # g g stands for the diagonal of the Hessian, which would cost a second backward.
                p.grad += strength * p.grad * p.grad * update.moved(p)

    def _strength(self, parameter: Tensor, gradient: Tensor) -> Tensor | float:
        return self._lam


class AdaptiveDelayCompensation(DelayCompensation):
    """DC-ASGD-a: lambda is ``lam / sqrt(MS + 1e-7)`` with ``MS <- 0.95 MS + 0.05 g g`` (the same, equation 14).

    Args:
        site: where it acts.
        lam: lambda_0, the strength.
    """

    vectors = 1

    def __init__(self, site: Site, lam: float = 2.0) -> None:
        super().__init__(site, lam)
        self._squares: dict[Tensor, Tensor] = {}

    def _strength(self, parameter: Tensor, gradient: Tensor) -> Tensor:
        new = gradient * gradient * (1 - RHO)
        old = self._squares.get(parameter)
        self._squares[parameter] = new if old is None else old * RHO + new
        return self._lam / (self._squares[parameter] + SMALL).sqrt()

    @property
    def nbytes(self) -> int:
        """Bytes of the mean squares."""
        return sum(square.nbytes for square in self._squares.values())
