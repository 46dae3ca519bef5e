"""What a run begins with in the place of a fresh model: a checkpoint of another shape, or files of a plain loop.

Does not know: how either is read, agents, engines.

The model itself is given to the whole run, so that it is tried, cut and measured as any other.  What is left is for the
units: the state of their optimizers, and the parameters of their group where these are not those of the mean.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.agents import Beginning
from stalegrid.checkpoints import Checkpoint
from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.objects import State, copied, first_names, tensors_of
from stalegrid.plans import Plan, ServedPlan, Task, cast_model, whole_model
from stalegrid.programs import Unit
from stalegrid.stages import NamedState, Site, move
from stalegrid.transfer.exported import read_exported, restore_exported
from stalegrid.transfer.position import Position
from stalegrid.transfer.reading import in_flight, read_whole, shape_of
from stalegrid.transfer.whole import fill_whole

Part = tuple[dict[str, Tensor], NamedState | None]
"""What a group begins with: tensors that are other ones than the task's model has, and the state of the optimizer."""


class Given(Beginning):
    """What units begin with that go on from something.

    Args:
        model: of the task, which knows the names.
        read: group -> what it begins with.
        own: whether that is another one for each group.
    """

    def __init__(self, model: nn.Module, read: Callable[[int], Part], *, own: bool = False) -> None:
        self._first = first_names(model)
        self._read = read
        self._own = own
        self._kept: tuple[int, Part] | None = None

    def fill(self, unit: Unit, module: nn.Module) -> None:
        """Give a stage's module what its group had."""
        tensors, _ = self._of(unit.group)
        with torch.no_grad():
            for name, tensor in tensors_of(module).items():
                if (found := tensors.get(self._first.get(name, name))) is not None:
                    tensor.copy_(found)

    def scheduled(self, task: Task, unit: Unit, site: Site) -> LRScheduler | None:
        """Give the optimizer its state, and make its schedule; errors as for :func:`stalegrid.stages.move`."""
        _, state = self._of(unit.group)
        if state is None:
            return task.scheduler_of(site.optimizer)
        named = [(self._first.get(name, name), p) for name, p in site.weights.named()]
        return move(site.optimizer, named, state, site.schedule.begins, task.scheduler_of)

    def _of(self, group: int) -> Part:
        # Units come group by group: to keep more than one would be more memory than need be.
        which = group if self._own else 0
        if self._kept is None or self._kept[0] != which:
            self._kept = which, self._read(which)
        return self._kept[1]


class Start:
    """What a run begins with: the task's own model, where nothing else is said."""

    def into(self, task: Task, training: TrainingSettings) -> Task:
        """Return the task with the model that the run begins with, in the type of the run."""
        return task

    def placed(self, plan: Plan | ServedPlan) -> Plan | ServedPlan:
        """Return the plan of a run that begins where this says."""
        return plan

    def opened(self, task: Task, plan: Plan | ServedPlan) -> Beginning:
        """Return what units of a process begin with."""
        return Beginning()

    def told(self, plan: Plan | ServedPlan) -> State:
        """Return what is to be said of it, as plain values."""
        return {}

    def check(self, task: Task, plan: Plan | ServedPlan) -> None:
        """Try it on a copy of every stage.

        Raises:
            ConfigError: it does not fit the task.
        """
        begins = self.opened(task, plan)
        if type(begins) is Beginning or not isinstance(plan, Plan):
            return
        for k, stage in enumerate(plan.partition.stages(cast_model(task, plan.training))):
            unit, module, fresh = Unit(0, k), copied(stage), task.fresh()
            begins.fill(unit, module)
            site = Site.build(unit, plan.program, module, fresh.optimizer_of, plan.stages[k].names)
            begins.scheduled(fresh, unit, site)


ANEW = Start()
"""A run that goes on from nothing."""


@dataclass(frozen=True)
class FromFile(Start):
    """Files that :func:`stalegrid.save_exported` or ``stalegrid export`` wrote; the run begins with the first batch.

    Args:
        path: of the model.
    """

    path: Path

    def into(self, task: Task, training: TrainingSettings) -> Task:
        """Return the task with the model of the file.

        Raises:
            ConfigError: it is another model.
            DataError: a file cannot be read.
        """
        model = whole_model(task, training)
        restore_exported(model, self.path)
        return replace(task, model=model, source=None)

    def placed(self, plan: Plan | ServedPlan) -> Plan | ServedPlan:
        """Return the plan as it is."""
        return _grid(plan)

    def opened(self, task: Task, plan: Plan | ServedPlan) -> Beginning:
        """Return what units of a process begin with, of every group the same."""
        return Given(task.model, lambda group: ({}, read_exported(self.path).training))

    def told(self, plan: Plan | ServedPlan) -> State:
        """Return which file, and whether it has more than a model."""
        found = read_exported(self.path)
        return {"file": str(self.path), "optimizer": None if found.training is None else found.training.optimizer}


@dataclass(frozen=True)
class FromRun(Start):
    """A checkpoint of a grid, from which a run goes on in another shape.

    Each group goes on from its own part where there are as many groups as there were, else all from the mean; from the
    mean too where a mixing remembers what all groups have begun with alike.

    Args:
        checkpoint: of the grid.
    """

    checkpoint: Checkpoint

    def into(self, task: Task, training: TrainingSettings) -> Task:
        """Return the task with the mean model.

        Raises:
            ConfigError: it is another model.
            DataError: a file cannot be read.
        """
        model = whole_model(task, training)
        fill_whole(model, read_whole(self.checkpoint), str(self.checkpoint.folder))
        return replace(task, model=model, source=None)

    def placed(self, plan: Plan | ServedPlan) -> Plan | ServedPlan:
        """Return the plan of a run that begins at the same place in the data."""
        own = _grid(plan)
        return own.begun(self._moved(own)[0].update)

    def opened(self, task: Task, plan: Plan | ServedPlan) -> Beginning:
        """Return what units of a process begin with."""
        own = self._own(_grid(plan))

        def read(group: int) -> Part:
            whole = read_whole(self.checkpoint, group if own else None)
            return (whole.tensors if own else {}), whole.training

        return Given(task.model, read, own=own)

    def told(self, plan: Plan | ServedPlan) -> State:
        """Return from where it goes on, and what is not as it was."""
        position, twice = self._moved(_grid(plan))
        return {
            "checkpoint": str(self.checkpoint.folder),
            "version": self.checkpoint.version,
            "update": position.update,
            "groups": "own" if self._own(_grid(plan)) else "mean",
            "batches_dropped": in_flight(self.checkpoint),
            "samples_twice": twice,
        }

    def _own(self, plan: Plan) -> bool:
        return not plan.mixing.keeps and shape_of(self.checkpoint)[0] == list(range(plan.grid.groups))

    def _moved(self, plan: Plan) -> tuple[Position, int]:
        then = Position(**{**self.checkpoint.manifest["position"], "update": self.checkpoint.version})
        return then.into(Position.of(plan))


def _grid(plan: Plan | ServedPlan) -> Plan:
    if not isinstance(plan, Plan):
        raise ConfigError(
            f"a run with parameter servers begins with the model alone (method: {plan.method.name}); load it into the "
            "model yourself, or train a grid"
        )
    return plan


def sentence(told: State) -> str:
    """Return what :meth:`Start.told` says as a line for people."""
    if "file" in told:
        own = told["optimizer"]
        return f"begins with {told['file']}, " + ("the model alone" if own is None else f"and the state of {own}")
    return (
        f"goes on from update {told['version']} of {told['checkpoint']} as update {told['update']} of another run, not "
        f"to the bit: {told['batches_dropped']} batches in flight were dropped, {told['samples_twice']} more samples "
        f"are trained twice, and what views, corrections and exchanges remember begins anew; parameters and optimizers "
        f"are {_WHOSE[told['groups']]}"
    )


_WHOSE = {"own": "those of each group", "mean": "the mean over groups"}
