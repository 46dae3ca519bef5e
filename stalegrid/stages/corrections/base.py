"""What a correction may change: a gradient on its way down, gradients before a step, its rate, the weights it made.

Does not know: schedules of other stages, engines, what any particular correction does.

With these few answers, those of a view and a staleness every method is described, so no agent asks which one it runs.
"""

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from stalegrid.stages.site import Site, part


@dataclass(frozen=True, slots=True)
class Update:
    """What is known of an update when its gradients are there and its step is due.

    Args:
        index: n, the version that the update changes.
        staleness: updates since the forward of the batch; the largest of the batches that the update averages.
        forwarded: vector of the parameters that the batch was forwarded at; None unless the correction asks for it.
    """

    index: int
    staleness: int
    forwarded: Tensor | None

    def moved(self, parameter: Tensor) -> Tensor:
        """Return how far a parameter moved since the forward: ``w_now - w_forward``, of its shape."""
        assert self.forwarded is not None
        return parameter.detach() - part(self.forwarded, parameter)


class Correction:
    """Does nothing; inherit, and override what the correction changes.

    Args:
        site: where it acts: unit, schedule, weights, optimizer.

    Attributes:
        needs_forwarded: whether it reads the parameters of the forward, which costs a copy a version in flight.
        vectors: how many vectors as large as the parameters it keeps from one update to the next.
    """

    needs_forwarded: ClassVar[bool] = False
    vectors: ClassVar[int] = 0

    def __init__(self, site: Site) -> None:
        self.site = site

    def received(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Return what the backward starts from, given what came from the stage above; not called on the last stage.

        A gradient that a later use of a tied parameter sends passes through it by itself, once for every stage on its
        way down.
        """
        return gradients

    def correct(self, update: Update) -> None:
        """Change the gradients (``parameter.grad``) before the optimizer's step."""

    def rate(self, update: Update) -> float:
        """Return a factor of the learning rate of this update."""
        return 1.0

    def stepping(self, update: Update) -> None:
        """Take note of the weights and of the optimizer's state just before its step."""

    def stepped(self, update: Update) -> None:
        """Take note of the optimizer's state after its step, or change the weights that it made, in place."""

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors that it keeps."""
        return 0
