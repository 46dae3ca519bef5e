"""What is trained: the user's own model, data, loss and optimizer, as ordinary PyTorch objects.

Does not know: grids, methods, engines.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from stalegrid.data import CropAndFlip, Later, inside, opened, repeating
from stalegrid.errors import ConfigError
from stalegrid.objects import LossFunction, attach, copied, hooks_of, renewed
from stalegrid.observe import Measure
from stalegrid.sources import Source, filled, stand_in
from stalegrid.stages import Named, OptimizerFactory, make_optimizer, make_scheduler


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        model: maps a batch of inputs to tensors.
        data: map-style training data of (input, target) pairs, or of other trees of tensors; or a stream of such; or
            what opens it where it is read.
        loss: (outputs, targets) -> loss averaged over the samples, shape (); or its sum and what that counts (tokens,
            samples), each shape (), which are added up over an update before they are divided.
        optimizer: parameters, or named ones if its argument is called so -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update; None for a constant rate.
        test: map-style test data, or what opens it; None for none.
        augment: drawn anew for every epoch and sample; None for none.
        metrics: what is measured on the test data beside loss and accuracy, by name.
        source: where values of the model are that has none, see :func:`stalegrid.sources.built`; None where it has.
    """

    model: nn.Module
    data: Dataset[Any]
    loss: LossFunction
    optimizer: OptimizerFactory
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    test: Dataset[Any] | None = None
    augment: CropAndFlip | None = None
    metrics: Mapping[str, Measure] = field(default_factory=dict)
    source: Source | None = None

    def filled(self, part: nn.Module, model: nn.Module) -> nn.Module:
        """Return a copy of a part of the model, with values.

        Args:
            part: shares tensors with the model.
            model: the task's, or a copy of it in another type.
        """
        return copied(part) if self.source is None else filled(part, model, self.source)

    def tried(self, model: nn.Module) -> nn.Module:
        """Return what the model can be tried with: itself, or what stands in for one that is too large to have whole.

        Args:
            model: the task's, or a copy of it in another type.
        """
        return model if self.source is None else stand_in(model, self.source)

    def fresh(self) -> "Task":
        """Return the same task with a loss and factories of its own, whose state nobody else shares.

        Model and data are shared.
        """
        own = [*self.model.modules(), *self.model.parameters(), *self.model.buffers()]
        sets = [*inside(self.data), *inside(self.test)]
        functions = renewed((self.loss, self.optimizer, self.scheduler), (*own, *sets))
        loss, optimizer, scheduler = functions
        return dataclasses.replace(self, loss=loss, optimizer=optimizer, scheduler=scheduler)

    def original(self, named: Iterable[tuple[str, nn.Parameter]]) -> Named:
        """Return parameters under the names that ``model.named_parameters()`` has for them.

        One that is tied has several, and a stage, which has other modules, may find it by another one first.

        Args:
            named: parameters of a copy of the model or of a part of it; of what is not in the model the name stays.
        """
        first = {id(p): name for name, p in self.model.named_parameters()}
        names = {name: first[id(p)] for name, p in self.model.named_parameters(remove_duplicate=False)}
        return [(names.get(name, name), p) for name, p in named]

    def optimizer_of(self, named: Iterable[tuple[str, nn.Parameter]]) -> Optimizer:
        """Make the optimizer of some parameters; for none, one that has the usual rates and nothing to do.

        Args:
            named: see :meth:`original`.

        Raises:
            ConfigError: the factory fails, or makes what cannot step here, or nothing of the model is trained.
        """
        given = self.original(named)
        if given:
            return make_optimizer(self.optimizer, given)
        # Torch's refuse to begin without parameters, and a factory may look at them: it gets one of another stage.
        name, found = next(((n, p) for n, p in self.model.named_parameters() if p.requires_grad), ("", None))
        if found is None:
            raise ConfigError(
                "nothing of the model is trained (parameters with requires_grad: none); let at least one have a "
                "gradient"
            )
        stand_in = nn.Parameter(found.detach().clone())
        vars(stand_in).update(vars(found))
        made = make_optimizer(self.optimizer, [(name, stand_in)])
        made.state.clear()
        for group in made.param_groups:
            group["params"] = []
            if "param_names" in group:
                group["param_names"] = []
        return made

    def scheduler_of(self, optimizer: Optimizer) -> LRScheduler | None:
        """Make the schedule of an optimizer, if there is one.

        Raises:
            ConfigError: the factory makes what cannot step here.
        """
        return None if self.scheduler is None else make_scheduler(self.scheduler, optimizer)

    def __getstate__(self) -> dict[str, Any]:
        sets = {"data": Later.of(self.data), "test": None if self.test is None else Later.of(self.test)}
        return {**vars(self), **sets, "hooks": hooks_of(self.model)}  # pickling a parameter drops them

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooks = state.pop("hooks")
        vars(self).update(state)
        attach(self.model, hooks)

    def let_go(self) -> None:
        """Forget data that can be opened again: those who read it have it now."""
        for data in (self.data, self.test):
            if isinstance(data, Later):
                data.let_go()


def fingerprint(task: Task) -> str:
    """Summarise a task's data: sizes and some of the samples, drawn alike in every process."""
    return " ".join(repeating.fingerprint(opened(data)) for data in (task.data, task.test))
