"""Gradients of a stage no longer than a given norm.

Does not know: other stages, whose gradients count for nothing here: the norm of a whole model's would need all stages
at once.

A correction like others and not a step of the agent, so that its place in their order is plain and a user can move it.
"""

from torch.nn.utils import clip_grad_norm_

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.site import Site


class Clip(Correction):
    """Scales the gradients of a stage down to an L2 norm, over the stage's own parameters.

    Args:
        site: where it acts.
        norm: the largest allowed.

    Raises:
        ConfigError: the norm is not positive.
    """

    def __init__(self, site: Site, norm: float = 1.0) -> None:
        super().__init__(site)
        if not norm > 0:
            raise ConfigError(f"gradients are clipped to a positive norm (clip={norm})")
        self._norm = norm

    def correct(self, update: Update) -> None:
        """Scale if the norm is larger."""
        clip_grad_norm_(self.site.weights.trainable(), self._norm)
