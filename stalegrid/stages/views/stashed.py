"""The weights of the forward: the gradient is exact at ``w^(b-m)``.

Does not know: how a version is kept.
"""

from torch import Tensor

from stalegrid.programs import Schedule
from stalegrid.stages.views.base import Kept, View


class Stashed(View):
    """Holds the version of every batch in flight, as PipeDream does (SOSP 2019)."""

    holds = True
    exact = True

    @classmethod
    def kept(cls, schedule: Schedule, stage: int) -> Kept:
        """Return the graphs in flight, and a copy for every version among them but the present one."""
        return Kept(schedule.in_flight(stage), 0, schedule.bound(stage))

    def forwarding(self, batch: int) -> tuple[int, Tensor]:
        """Hold the present version."""
        self.site.versions.hold(self.weights.version)
        return super().forwarding(batch)

    def seen(self, version: int) -> Tensor:
        """Return that version."""
        return self.site.versions.read(version)

    def finished(self, version: int) -> None:
        """Hold it no more."""
        self.site.versions.release(version)
