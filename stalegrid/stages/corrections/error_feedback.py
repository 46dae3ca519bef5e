"""An update, and once more how it differs from the one before: about what it would be if its gradient were new.

Does not know: gradients, which optimizer makes the updates, what is mixed with other groups.
"""

from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.base import Correction, Update
from stalegrid.stages.site import Site, part


class ErrorFeedback(Correction):
    """Error feedback for delayed updates (Zmushko et al., arXiv 2606.30634): ``w <- w - u_t - c (u_t - u_(t-1))``.

    ``u_t`` is all that the optimizer's step moved the weights by, rate and weight decay included, so any optimizer
    will do and its moments advance once.  The first update is plain.  What is remembered is u_t without the feedback,
    at the rate of its time; a parameter without a gradient is left alone, and its u_t is 0.  Of several corrections
    that change the weights each takes what those before it have made for the step.

    It is published for gradients that are one update late at every stage, as those of ``double-buffered`` are.  It
    acts alike on all stages, whatever their staleness is.

    Args:
        site: where it acts.
        c: how much of the difference is added.

    Raises:
        ConfigError: c is negative.
    """

    vectors = 1

    def __init__(self, site: Site, c: float = 1.0) -> None:
        super().__init__(site)
        if not c >= 0:
            raise ConfigError(f"error feedback adds 0 or more of the difference between two updates (c: {c})")
        self._c = c
        self._before: Tensor | None = None  # the weights, during a step
        self._last: Tensor | None = None

    def strength(self, update: Update) -> float:
        """Return what the difference between this update and the last one is multiplied with."""
        return self._c

    def stepping(self, update: Update) -> None:
        """Keep the weights that the step starts from."""
        self._before = self._parameters.clone()

    def stepped(self, update: Update) -> None:
        """Feed back how this update differs from the last one."""
        assert self._before is not None
        made, self._before = self._before.sub_(self._parameters), None
        resting = [p for p in self.site.weights.trainable() if p.grad is None]
        for p in resting:
            part(made, p).zero_()
        if self._last is not None:
            # In the place of what is remembered, which is replaced right after.
            difference = self._last.neg_().add_(made).mul_(self.strength(update))
            for p in resting:
                part(difference, p).zero_()
            self._parameters.sub_(difference)
        self._last = made

    @property
    def nbytes(self) -> int:
        """Bytes of the last update."""
        return 0 if self._last is None else self._last.nbytes

    @property
    def _parameters(self) -> Tensor:
        # What is trained alone: running statistics are nobody's update.
        return self.site.weights.flat[: self.site.weights.trained]


class ErrorFeedbackByStaleness(ErrorFeedback):
    """An experiment, published by nobody: ``w <- w - u_t - c m (u_t - u_(t-1))``, m the measured staleness.

    For m = 1 it is :class:`ErrorFeedback`; an update that is not stale is plain.

    Args:
        site: where it acts.
        c: how much of the difference is added for every update of staleness.

    Raises:
        ConfigError: c is negative.
    """

    def strength(self, update: Update) -> float:
        """Return ``c m``."""
        return self._c * update.staleness
