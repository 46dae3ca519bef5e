"""The weights of now minus an estimate of how far they moved since the forward.

Does not know: how activations are kept.
"""

import math

import torch
from torch import Tensor

from stalegrid.programs import Schedule
from stalegrid.stages.site import Site
from stalegrid.stages.views.base import Kept, View

DECAY = math.exp(-2.0)
"""D: what is left of a movement after as many updates as the stage is stale."""


class Corrected(View):
    """PipeMare's discrepancy correction, T2 (Yang et al., arXiv 1910.05124, section 3.2).

    ``delta <- gamma delta + (1 - gamma)(w_new - w_old)`` after every update, with ``gamma = D^(1 / ceil(m_k/M))``; the
    backward of a batch forwarded s updates ago sees ``w - s delta``.
    """

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._gamma = DECAY ** (1 / site.bound) if site.bound else 0.0
        self._delta = torch.zeros_like(self.parameters) if site.bound else None
        self._old: Tensor | None = None

    @classmethod
    def kept(cls, schedule: Schedule, stage: int) -> Kept:
        """Return the graphs in flight, delta, and the old weights during an update."""
        return Kept(schedule.in_flight(stage), 0, 2 if schedule.bound(stage) else 0)

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Return the weights of now."""
        self._learn()
        return super().forwarding(batch)

    def seen(self, version: int) -> Tensor:
        """Return the estimate of the weights of that version."""
        self._learn()
        updates = self.weights.version - version
        if self._delta is None or not updates:
            return self.weights.flat
        return self.parameters - self._delta * float(updates)

    def overwriting(self) -> None:
        """Remember the weights that the update starts from."""
        if self._delta is not None:
            self._learn()
            # What moves is learnt when somebody asks next: mixing with other groups comes after the update.
            self._old = self.parameters.clone()

    def _learn(self) -> None:
        """Take in the movement of the last update, the mixing with other groups included."""
        if self._old is not None and self._delta is not None:
            moved = (self.parameters - self._old).mul_(1 - self._gamma)
            self._delta.mul_(self._gamma).add_(moved)
            self._old = None

    @property
    def nbytes(self) -> int:
        """Bytes of delta and of the old weights."""
        return sum(t.nbytes for t in (self._delta, self._old) if t is not None)
