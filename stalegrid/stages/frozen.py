"""A stage below all that is trained: it forwards, and nobody needs a graph of its batches.

Does not know: other stages, schedules, why nothing below is trained.
"""

from stalegrid.objects import State
from stalegrid.stages.stage import Graph, Head, Stage, Tensors


class FrozenStage(Stage):
    """A stage that holds nothing of a batch but the version that it was forwarded at, and has no gradients.

    Its forward is not under ``no_grad``: a plain loop's is not either, and some kernels compute other bits there.
    """

    def _make_graph(self, batch: int, inputs: Tensors, head: Head | None, version: int) -> Tensors:
        # The version stays, so that a view is told when the batch is done, as of any stage.
        self._graphs[batch] = Graph((), (), version, 0)
        return self._run(self._cut(inputs), head)

    def keep(self, batch: int) -> None:
        """Note what its forward finds; there is no graph to be made again."""
        self._find(batch)

    def state_dict(self) -> State:
        """Return the versions that batches in flight were forwarded at."""
        return self._state({batch: graph.version for batch, graph in self._graphs.items()})

    def revive(self, batch: int, head: Head | None = None) -> None:
        """Note the version of a batch in flight; see :meth:`Stage.revive`."""
        self._graphs[batch] = Graph((), (), self._reviving.pop(batch), 0)
