"""Smaller gradients where the weights moved far since the forward, element by element.

Does not know: schedules.
"""

from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.optimizers.joined import kinds_of, parts_of
from stalegrid.stages.site import Site

RHO = 0.999
"""How slowly the mean square of the steps forgets."""
SMALL = 1e-8


class GapAware(Correction):
    """Gap-Aware (Barkai, Hakimi, Schuster, arXiv 1909.10802): ``(g + wd w) / (1 + |w_now - w_forward| / C)``.

    ``C = max_lr (sqrt(mean square of the steps) + 1e-8)``, where a step is the momentum buffer of SGD, or its gradient
    where there is no momentum; the mean forgets with 0.999 and is corrected for its start.

    Args:
        site: where it acts.

    Raises:
        ConfigError: the optimizer is not SGD.
    """

    needs_forwarded = True
    vectors = 1

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        if not all(isinstance(own, SGD) for own in parts_of(site.optimizer)):
            raise ConfigError(
                f"gap-aware is defined for SGD (optimizer: {kinds_of(site.optimizer)}); take dc-asgd or "
                "inverse-staleness"
            )
        self._squares: dict[Tensor, Tensor] = {}
        self._steps = 0

    def correct(self, update: Update) -> None:
        """Divide every gradient, the weight decay that the optimizer will add included."""
        if not self._steps:
            return  # nothing has moved
        for group in self.site.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None and p in self._squares:
                    decay = p.detach() * float(group["weight_decay"])
                    gap = update.moved(p).abs() / self._scale(p, group)
                    # Without the decay again, which the optimizer adds.
                    p.grad = (p.grad + decay) / (gap + 1) - decay

    def stepped(self, update: Update) -> None:
        """Take the step into the mean."""
        self._steps += 1
        for group in self.site.optimizer.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    step = self.site.optimizer.state.get(p, {}).get("momentum_buffer")
                    square = (p.grad if step is None else step).square() * (1 - RHO)
                    old = self._squares.get(p)
                    self._squares[p] = square if old is None else old * RHO + square

    @property
    def nbytes(self) -> int:
        """Bytes of the mean squares."""
        return sum(square.nbytes for square in self._squares.values())

    def _scale(self, parameter: Tensor, group: dict[str, Any]) -> Tensor:
        # max_lr is a note of OneCycleLR, initial_lr one of all schedules; without a schedule there is neither.
        largest = float(group.get("max_lr", group.get("initial_lr", group["lr"])))
        mean = self._squares[parameter] / (1 - RHO**self._steps)
        return (torch.sqrt(mean) + SMALL) * largest
