"""Smaller gradients the further they travel.

Does not know: weights, optimizers.
"""

from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction
from stalegrid.stages.site import Site


class Shrink(Correction):
    """Gradient shrinking (Zhuang et al., FDG, arXiv 1906.09108): what a stage receives is scaled by beta.

    So the gradient of stage k is scaled by ``beta^(K-1-k)``; weight decay is not.

    Args:
        site: where it acts.
        beta: the factor, above 0; 1 changes nothing.

    Raises:
        ConfigError: beta is 0 or less, or above 1.
    """

    def __init__(self, site: Site, beta: float = 0.5) -> None:
        super().__init__(site)
        if not 0 < beta <= 1:
            raise ConfigError(f"shrink scales gradients by more than 0 and at most 1 (shrink={beta})")
        self._beta = beta

    def received(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Scale all of them."""
        return tuple(g * self._beta for g in gradients)
