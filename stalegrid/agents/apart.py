"""How far the groups' models are apart in what they predict, measured beside their mean.

Does not know: engines, files, how the mean is measured.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stalegrid.agents.replicas import counted
from stalegrid.errors import TrainingError
from stalegrid.objects import Form, Tensors, by_every_name, call, copied, spread
from stalegrid.observe import Divergence, class_scores
from stalegrid.programs import Unit
from stalegrid.seeds import kept
from stalegrid.stages import Precision, StageLayout


class Apart:
    """Keeps every group's model of a version, and forwards the test data with each.

    That is a forward of each group for each slice, and as much memory as all groups' models and one more.

    Args:
        model: a plain copy of the user's model, in evaluation mode.
        owners: for each part of the parameters, the units that have a replica of it.
        layouts: per part.
        weights: of the groups, in the order of the owners.
    """

    def __init__(
        self,
        model: nn.Module,
        owners: Sequence[Sequence[Unit]],
        layouts: Sequence[StageLayout],
        weights: Sequence[float],
    ) -> None:
        # One model for all: in memory of its own for each, kernels might sum in other orders.
        self._model = copied(model).eval()
        self._device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._owners = owners
        self._layouts = layouts
        self._divergence = Divergence(weights)
        self._groups: list[list[tuple[Tensor, Tensor]]] = []

    def begin(self, vectors: Mapping[Unit, Tensor], counters: Mapping[Unit, Tensor]) -> None:
        """Begin the measurement of a version, of which there is the vector of every unit."""
        self._divergence.reset()
        replicas = range(len(self._owners[0]))
        self._groups = [[(vectors[units[s]], counters[units[s]]) for units in self._owners] for s in replicas]

    def add(self, form: Form, inputs: Tensors, targets: Any, precision: Precision) -> None:
        """Forward a slice with every group's model.

        Args:
            form: of the arguments.
            inputs: of the slice.
            targets: likewise.
            precision: that models compute in.

        Raises:
            TrainingError: the outputs are no scores of classes, as those of slices before were.
        """
        if len(self._groups) == 1:
            return  # which is apart from nobody
        found = []
        for group in self._groups:
            self._fill(group)
            own = tuple(x.clone() for x in inputs)
            # What a forward draws, each draws alike, and whoever measures the mean as if nobody had.
            with kept(self._device), precision.on(self._device):
                outputs = spread(call(self._model, form, own))
            found.append(self._scores(outputs[0], targets))
        self._divergence.update(found)

    def distance(self) -> float:
        """Return how far they are apart, and forget the models."""
        self._groups = []
        return self._divergence.distance()

    @staticmethod
    def _scores(outputs: Any, targets: Any) -> Tensor:
        scores = class_scores(outputs, targets)
        if scores is None:
            raise TrainingError(
                "outputs of a slice of the test data are no scores of classes, or nobody can tell which dimension has "
                "them (output.js_distance: true); leave it out"
            )
        return scores

    @torch.no_grad()
    def _fill(self, group: Sequence[tuple[Tensor, Tensor]]) -> None:
        state = by_every_name(self._model)
        for (vector, counters), layout in zip(group, self._layouts, strict=True):
            for entry in layout.entries:
                state[entry.name].copy_(entry.view(vector))
            for name, value in counted(layout, counters).items():
                state[name].copy_(value)
