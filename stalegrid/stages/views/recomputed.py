"""The weights of now, with activations made anew at the backward from the input that was kept.

Does not know: how a forward is repeated; :class:`stalegrid.stages.recomputing.RecomputingStage` does.
"""

from stalegrid.programs import Schedule
from stalegrid.stages.views.base import Kept, View


class Recomputed(View):
    """Diversely stale parameters (arXiv 1909.02625) and Features Replay (arXiv 1807.04511).

    The gradient is exact at the weights of now, for the input of then; it costs one more forward.  A stage that never
    has more than one batch in flight keeps its graph: a second forward would make the same one.
    """

    recomputes = True

    @classmethod
    def kept(cls, schedule: Schedule, stage: int) -> Kept:
        """Return the graph of the batch whose backward is due, and the inputs of the others in flight."""
        return Kept(1, schedule.in_flight(stage) - 1, 0)
