"""A stage that forwards every batch twice: once for the stage above, once for the backward.

Does not know: other stages, schedules, when the second forward is due.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn
from torch.autograd.graph import saved_tensors_hooks

from stalegrid.objects import Form, State
from stalegrid.stages.precision import Precision
from stalegrid.stages.stage import Head, Stage, Tensors, forget, size_of
from stalegrid.stages.views.named import View
from stalegrid.stages.weights import Weights


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch of which only the inputs are kept."""

    inputs: Tensors
    head: Head | None


class RecomputingStage(Stage):
    """A stage that keeps the inputs of a batch, and makes its graph by a second forward just before the backward.

    The second forward uses the weights of its time, draws the same random numbers where both are keyed alike, and
    leaves buffers (such as running statistics) as it found them.
    """

    def __init__(
        self,
        module: nn.Module,
        weights: Weights,
        view: View,
        first: bool,
        form: Form | None = None,
        precision: Precision = Precision(),  # noqa: B008 - it has no state
        compiles: bool = False,
    ) -> None:
        super().__init__(module, weights, view, first, form, precision, compiles)
        self._elsewhere = False  # every graph is made where its backward is
        self._kept: dict[int, Waiting] = {}

    def forward(
        self, batch: int, inputs: Tensors, head: Head | None = None, lend: Sequence[str] = ()
    ) -> tuple[Tensors, int]:
        """Forward a batch without a graph; see :meth:`Stage.forward`.

        Raises:
            TrainingError: the view forwards at other weights than it is said to.
            RuntimeError: the model changes its inputs in place, so that they could not be forwarded again.
        """
        version, vector = self._forwarding(batch)
        leaves = self._cut(inputs)
        # Inputs that share memory with the message are kept, so a change in place would change what is forwarded again.
        modified = [x._version for x in leaves]
        # Not without gradients: some kernels then compute other bits than the second forward will.
        with saved_tensors_hooks(forget, forget), self.weights.showing(vector):
            outputs = self._run(leaves, head)
            self._lend(lend)
            made = tuple(self._own(y) for y in outputs)
        if modified != [x._version for x in leaves]:
            raise RuntimeError("the model changes its input in place, which cannot be forwarded again; copy it first")
        self._kept[batch] = Waiting(leaves, head)
        return made, version

    def recompute(self, batch: int) -> None:
        """Forward a batch again, and keep its graph."""
        kept = self._kept.pop(batch)
        floating, counters = self.weights.flat[self.weights.trained :], self.weights.counters().values()
        statistics = floating.clone()
        counts = [(counter, counter.clone(), counter._version) for counter in counters]
        with self.mirrors.showing(batch):
            self._make_graph(batch, kept.inputs, kept.head, self.weights.version)
        # Running statistics and counters have seen this batch already, at its first forward.
        floating.copy_(statistics)
        for counter, value, modified in counts:
            if counter._version != modified:  # the graph may need what did not change
                counter.copy_(value)

    def keep(self, batch: int) -> None:
        """Note what its forward finds; the inputs are kept anyway."""
        self._find(batch)

    def state_dict(self) -> State:
        """Return the inputs of batches in flight."""
        return self._state({batch: kept.inputs for batch, kept in self._kept.items()})

    def revive(self, batch: int, head: Head | None = None) -> None:
        """Take the inputs of a batch in flight back; see :meth:`Stage.revive`."""
        self._kept[batch] = Waiting(self._cut(self._reviving.pop(batch)), head)

    @property
    def nbytes(self) -> int:
        """Bytes held for batches in flight, without copies of the weights."""
        return super().nbytes + sum(size_of(kept.inputs) for kept in self._kept.values())
