"""The version before the present one, for all batches of an update: at most two versions exist.

Does not know: how a version is kept.
"""

from torch import Tensor

from stalegrid.errors import ConfigError
from stalegrid.programs import Schedule
from stalegrid.stages.site import Site
from stalegrid.stages.views.base import Kept, View


class DoubleBuffered(View):
    """PipeDream-2BW: ``W(t+1) = W(t) - nu grad f(W(t-1))`` (Narayanan et al., arXiv 2006.09503, section 3.1).

    Every stage has the same staleness of one update, however deep the pipeline.
    """

    delay = 1
    holds = True
    elsewhere = True
    exact = True

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self._previous: int | None = None

    @classmethod
    def check(cls, schedule: Schedule) -> None:
        """Check that no batch is forwarded before its version exists, and that nothing flushes."""
        ahead, micro = schedule.windows[0] - 1, schedule.micro_batches
        if schedule.flush:
            raise ConfigError("view double-buffered delays every update by one, which a flush forbids; take stashed")
        if ahead > micro:
            raise ConfigError(
                f"view double-buffered needs as many micro-batches as batches are forwarded ahead (micro_batches: "
                f"{micro}, staleness of stage 0: {ahead}); raise micro_batches to {ahead} or more"
            )

    @classmethod
    def kept(cls, schedule: Schedule, stage: int) -> Kept:
        """Return the graphs in flight and one copy."""
        return Kept(schedule.in_flight(stage), 0, 1)

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Hold the version that the schedule says."""
        version = self.site.schedule.version_of(self.site.unit.stage, batch)
        self.site.versions.hold(version)
        return version, self.seen(version)

    def seen(self, version: int) -> Tensor:
        """Return that version."""
        return self.site.versions.read(version)

    def finished(self, version: int) -> None:
        """Hold it no more."""
        self.site.versions.release(version)

    def overwriting(self) -> None:
        """Hold the present version instead of the one before it, for the batches of the next update."""
        # Nobody reads the version before any more: the batches of this update, forwarded at it, had their backwards.
        if self._previous is not None:
            self.site.versions.release(self._previous)
        self._previous = self.weights.version
        self.site.versions.hold(self._previous)
