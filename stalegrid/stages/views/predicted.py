"""Weights extrapolated from the optimizer's state, so that a forward uses what its update will find.

Does not know: how a forward is made to use them.

``w_hat = w - lr s d`` for ``s`` updates ahead, where d is the direction of the next step if no gradient were to come:
the momentum buffer of SGD (SpecTrain, arXiv 1809.02839), ``m_hat / (sqrt(v_hat) + eps)`` for Adam and AdamW (PipeOptim,
arXiv 2312.00839).  Decoupled weight decay is not extrapolated.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim import SGD, Adam, AdamW, Optimizer

from stalegrid.errors import ConfigError
from stalegrid.programs import Schedule
from stalegrid.stages.optimizers.joined import parts_of
from stalegrid.stages.site import Site, part
from stalegrid.stages.views.base import View


class Predicted(View):
    """Predicts up to the batch's own update at the forward; the backward sees the weights of now (PipeOptim).

    Raises:
        ConfigError: the optimizer has no state to extrapolate from.
    """

    elsewhere = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._directions = [(own, _direction_of(own)) for own in parts_of(site.optimizer)]

    @classmethod
    def late(cls, schedule: Schedule, stage: int) -> bool:
        """Return whether the stage is stale: what is not predicts nothing."""
        return schedule.bound(stage) > 0

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Return the weights expected at the batch's update."""
        version = self.weights.version
        return version, self.ahead(batch // self.site.schedule.micro_batches - version)

    def ahead(self, updates: int) -> Tensor:
        """Return the weights that are expected so many updates from now; those of now for 0."""
        if not updates:
            return self.weights.flat
        vector = self.parameters.clone()
        for optimizer, direction_of in self._directions:
            for group in optimizer.param_groups:
                for parameter in group["params"]:
                    state = optimizer.state.get(parameter)
                    # Before its first gradient a parameter has no state, and is predicted to stay.
                    direction = direction_of(group, state) if state else None
                    if direction is not None:
                        # All steps at the rate of now: an optimizer does not know what its schedule will do.
                        part(vector, parameter).sub_(direction * (float(group["lr"]) * updates))
        return vector


class PredictedTwice(Predicted):
    """Predicts at the forward and at the backward, up to the time when the first stage uses the batch (SpecTrain).

    With ``m_k = K-1-k`` that is ``floor(k/2) + K-1-k`` and ``floor(k/2)`` updates; here ``floor((m_0 - m_k)/2)`` in
    the place of ``floor(k/2)``, which is the same and also holds for other staleness.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        windows = site.schedule.windows
        # Windows are m_k + 1; the difference is that of the m_k, in batches.
        self._after = (windows[0] - windows[site.unit.stage]) // 2 // site.schedule.micro_batches
        if site.schedule.flush:
            self._after = 0

    @classmethod
    def late(cls, schedule: Schedule, stage: int) -> bool:
        """Return whether any stage is stale: then those above predict too."""
        return schedule.bound(0) > 0

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Return the weights expected when the first stage uses the batch."""
        version = self.weights.version
        return version, self.ahead(batch // self.site.schedule.micro_batches - version + self._after)

    def seen(self, version: int) -> Tensor:
        """Return the weights expected at that time, from here."""
        return self.ahead(self._after)


_Direction = Callable[[dict[str, Any], dict[str, Any]], Tensor | None]


def _direction_of(optimizer: Optimizer) -> _Direction:
    groups = optimizer.param_groups
    if isinstance(optimizer, SGD) and all(group["momentum"] for group in groups):
        return _momentum
    if isinstance(optimizer, Adam | AdamW) and not any(group["amsgrad"] for group in groups):
        return _adam
    shown = type(optimizer).__name__ + (" without momentum" if isinstance(optimizer, SGD) else "")
    raise ConfigError(
        f"predicted weights are extrapolated from momentum or from Adam's moments (optimizer: {shown}); take SGD with "
        "momentum, Adam or AdamW without amsgrad, or another view"
    )


def _momentum(group: dict[str, Any], state: dict[str, Any]) -> Tensor | None:
    found: Tensor | None = state.get("momentum_buffer")
    return found


def _adam(group: dict[str, Any], state: dict[str, Any]) -> Tensor:
    (beta1, beta2), t = group["betas"], int(state["step"])
    mean: Tensor = state["exp_avg"] / (1 - beta1**t)
    scale: Tensor = torch.sqrt(state["exp_avg_sq"] / (1 - beta2**t)) + group["eps"]
    return mean / scale
