"""What a view answers: which weights a forward uses, and which a late backward sees.

Does not know: batches' tensors, other stages, what any particular view does.

Between the forward of a batch and its backward the weights of stage k change ``m_k`` times.  A view is a small class
that overrides what it does differently from the plainest answer, the weights of now at both.  It gives four answers:
which vector a forward uses, which a backward sees, and what it does when a batch is finished and when a version is
about to be overwritten.
"""

from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from stalegrid.programs import Schedule
from stalegrid.stages.site import Site


@dataclass(frozen=True, slots=True)
class Kept:
    """What a stage holds at most, besides its weights, gradients and optimizer state.

    Args:
        graphs: of batches in flight, with everything they save for the backward.
        inputs: of batches in flight that have no graph.
        copies: vectors as large as the parameters.
    """

    graphs: int
    inputs: int
    copies: int


class View:
    """The weights of now at the forward and at the backward; inherit and override.

    Args:
        site: where it acts.

    Attributes:
        recomputes: whether the graph of a late backward is made by a second forward.
        delay: versions between the weights that an update changes and those its batches are forwarded at; 0 to
            forward at the weights of now.
        holds: whether the versions of all batches in flight are held anyway.
        elsewhere: whether forwards use other weights than those of now.
        exact: whether a backward sees the very weights of its forward; no more, unless it says so, in a class that
            overrides what either uses.
    """

    recomputes: ClassVar[bool] = False
    delay: ClassVar[int] = 0
    holds: ClassVar[bool] = False
    elsewhere: ClassVar[bool] = False
    exact: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        """Let a class not inherit that it is exact along with half of what makes it so."""
        super().__init_subclass__(**options)
        if "exact" not in vars(cls) and vars(cls).keys() & {"forwarding", "seen"}:
            cls.exact = False

    def __init__(self, site: Site) -> None:
        self.site = site
        self.weights = site.weights

    @classmethod
    def check(cls, schedule: Schedule) -> None:
        """Check that the view makes sense with a schedule.

        Raises:
            ConfigError: it does not.
        """

    @classmethod
    def kept(cls, schedule: Schedule, stage: int) -> Kept:
        """Return what a stage of such a schedule holds at most."""
        return Kept(graphs=schedule.in_flight(stage), inputs=0, copies=0)

    @classmethod
    def late(cls, schedule: Schedule, stage: int) -> bool:
        """Return whether a backward may find other weights in their place than its forward had there."""
        return cls.elsewhere or schedule.bound(stage) > 0

    @classmethod
    def casts_anew(cls, schedule: Schedule, stage: int) -> bool:
        """Return whether a backward needs casts of other weights than those that its forward has cast."""
        return not cls.exact and not cls.recomputes and cls.late(schedule, stage)

    @property
    def parameters(self) -> Tensor:
        """The trained parameters of now, one after another: a part of the vector, which updates change."""
        return self.weights.flat[: self.weights.trained]

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Return the version and the vector of parameters that the forward of a batch uses, now."""
        return self.weights.version, self.weights.flat

    def seen(self, version: int) -> Tensor:
        """Return the vector of parameters that the backward of a batch forwarded at this version uses, now."""
        return self.weights.flat

    def finished(self, version: int) -> None:
        """Note that a batch forwarded at this version had its backward."""

    def overwriting(self) -> None:
        """Note that the present version is about to be overwritten."""

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors that the view itself keeps."""
        return 0
