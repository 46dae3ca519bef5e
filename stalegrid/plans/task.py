"""What is trained: the user's own model, data, loss and optimizer, as ordinary PyTorch objects.

Does not know: grids, methods, engines.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from stalegrid.data import CropAndFlip, repeating
from stalegrid.errors import ConfigError
from stalegrid.objects import LossFunction, attach, hooks_of, renewed


@dataclass(frozen=True)
class Task:
    """What is trained.

    Args:
        model: maps a batch of inputs to tensors.
        data: map-style training data of (input, target) pairs, or of other trees of tensors.
        loss: (outputs, targets) -> loss averaged over the samples, shape (); or its sum and what that counts (tokens,
            samples), each shape (), which are added up over an update before they are divided.
        optimizer: parameters -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update; None for a constant rate.
        test: map-style test data; None for none.
        augment: drawn anew for every epoch and sample; None for none.
    """

    model: nn.Module
    data: Dataset[Any]
    loss: LossFunction
    optimizer: Callable[[list[nn.Parameter]], Optimizer]
    scheduler: Callable[[Optimizer], LRScheduler] | None = None
    test: Dataset[Any] | None = None
    augment: CropAndFlip | None = None

    def fresh(self) -> "Task":
        """Return the same task with a loss and factories of its own, whose state nobody else shares.

        Model and data are shared.
        """
        own = [*self.model.modules(), *self.model.parameters(), *self.model.buffers()]
        functions = renewed((self.loss, self.optimizer, self.scheduler), (*own, self.data, self.test))
        loss, optimizer, scheduler = functions
        return dataclasses.replace(self, loss=loss, optimizer=optimizer, scheduler=scheduler)

    def optimizer_of(self, parameters: list[nn.Parameter]) -> Optimizer:
        """Make the optimizer of some parameters; for none, one that has the usual rates and nothing to do.

        Raises:
            ConfigError: nothing of the model is trained.
        """
        if parameters:
            return self.optimizer(parameters)
        # Torch's refuse to begin without parameters, and a factory may look at them: it gets one of another stage.
        found = next((p for p in self.model.parameters() if p.requires_grad), None)
        if found is None:
            raise ConfigError(
                "nothing of the model is trained (parameters with requires_grad: none); let at least one have a "
                "gradient"
            )
        stand_in = nn.Parameter(found.detach().clone())
        vars(stand_in).update(vars(found))
        made = self.optimizer([stand_in])
        made.state.clear()
        for group in made.param_groups:
            group["params"] = []
        return made

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "hooks": hooks_of(self.model)}  # pickling a parameter drops them

    def __setstate__(self, state: dict[str, Any]) -> None:
        hooks = state.pop("hooks")
        vars(self).update(state)
        attach(self.model, hooks)


def fingerprint(task: Task) -> str:
    """Summarise a task's data: sizes and some of the samples, drawn alike in every process."""
    return " ".join(map(repeating.fingerprint, (task.data, task.test)))
