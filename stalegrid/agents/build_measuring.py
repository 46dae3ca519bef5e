"""What the units of a process measure with, where stages measure the model, composed of its parts.

Does not know: engines, which process an agent lives in, files.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from stalegrid.agents.build_served import loss_on
from stalegrid.agents.evaluation import Evaluation
from stalegrid.agents.measuring import Measured, Measuring
from stalegrid.objects import by_every_name, tensors_of
from stalegrid.observe import Metrics, Saved
from stalegrid.plans import Plan, Staged, Task, make_test, precision_of
from stalegrid.programs import Through, Unit
from stalegrid.stages import Weights

SavePart = Callable[[int, int, Saved, Mapping[str, Tensor]], object]
"""(version, stage, what it saves, tensors by their names in the model) -> None."""


@dataclass(frozen=True)
class Pair:
    """A stage as it trains and as it measures, with the same parameters.

    Args:
        training: its module.
        measuring: likewise; None where there is nothing to measure.
        tensors: of both, and what no stage uses, by their names in the model.
    """

    training: nn.Module
    measuring: nn.Module | None
    tensors: Mapping[str, Tensor]


class Measurers:
    """Builds what units measure with.

    Args:
        task: what is trained.
        plan: of the run.
        staged: of the plan.
        model: of the plan's stages, without those that train, which are built next, for the mode of the model.
        device: that units compute on.
        save: writes what a stage has.
    """

    def __init__(
        self, task: Task, plan: Plan, staged: Staged, model: nn.Module, device: torch.device, save: SavePart
    ) -> None:
        self._task = task
        self._plan = plan
        self._staged = staged
        self._model = model
        self._device = device
        self._save = save
        self._modules = staged.stages(model)
        self._names = {id(tensor): name for name, tensor in tensors_of(model).items()}

    def measures(self, unit: Unit) -> bool:
        """Return whether a unit measures: those of the first group that is there do."""
        return unit.group == self._plan.turns.members[0]

    def pair(self, stage: nn.Module, number: int) -> Pair:
        """Return copies of both modules of a stage, with values.

        Args:
            stage: its module as it trains, with the model's parameters.
            number: of it.
        """
        modules = [stage, *([] if self._modules is None else [self._modules[number]])]
        both = nn.ModuleList([*modules, self._others(modules, number)])
        paths = {path: self._names[id(t)] for path, t in by_every_name(both).items() if id(t) in self._names}
        own = self._task.filled(both, self._model).to(self._device)
        training = own.get_submodule("0")
        measuring = None if self._modules is None else own.get_submodule("1")
        if measuring is not None:
            _share_buffers(training, measuring)
        tensors = {paths[path]: tensor for path, tensor in by_every_name(own).items() if path in paths}
        return Pair(training, measuring, tensors)

    def measuring(self, pair: Pair, number: int, weights: Weights) -> Measuring:
        """Return what a unit does for evaluations.

        Args:
            pair: modules of its stage.
            number: of that.
            weights: of that.
        """
        task, plan, staged = self._task.fresh(), self._plan, self._staged
        last = number == plan.grid.stages - 1
        test = make_test(task, plan.training) if last or not number else None
        metrics = Metrics(task.metrics if last else {}, self._device)
        evaluation = Evaluation(test, loss_on(task, self._device), metrics)
        watch = plan.program.watch
        assert isinstance(watch, Through)
        form = None if staged.partition is None else staged.partition.form
        weighed, precision = list(plan.turns.weights.values()), precision_of(plan.training)
        found = Measured(pair.measuring, form, watch, test, evaluation, precision, weighed, last)
        save = partial(self._saved, number, pair.tensors)
        return Measuring(number, weights, plan.stages[number], found, self._device, save)

    def _saved(self, number: int, tensors: Mapping[str, Tensor], version: int) -> None:
        self._save(version, number, self._staged.saved[number], tensors)

    def _others(self, modules: list[nn.Module], number: int) -> nn.Module:
        """Return a module that holds what a stage saves and does not use, such as what no stage does."""
        known, saved = dict(tensors_of(self._model)), self._staged.saved[number]
        used = {id(tensor) for module in modules for tensor in tensors_of(module).values()}
        left = {item.name: known[item.name] for item in (*saved.state, *saved.rest)}
        others = nn.Module()
        for n, tensor in enumerate(t for t in left.values() if id(t) not in used):
            if isinstance(tensor, nn.Parameter):
                others.register_parameter(f"other{n}", tensor)
            else:
                others.register_buffer(f"other{n}", tensor)
        return others


def _share_buffers(training: nn.Module, measuring: nn.Module) -> None:
    """Let two modules have the same buffers again: on its way to a device each module gets copies of its own."""
    known = dict(training.named_buffers(remove_duplicate=False))
    for path, part in measuring.named_modules(remove_duplicate=False):
        for name in part._buffers:
            if (full := f"{path}.{name}" if path else name) in known:
                part._buffers[name] = known[full]
