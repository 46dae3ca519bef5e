"""What a unit begins with beside the model of its task.

Does not know: what it could go on from.
"""

from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from stalegrid.plans import Task
from stalegrid.programs import Unit
from stalegrid.stages import Site


class Beginning:
    """What the units of a process begin with: what the task gives them; inherit and override."""

    def fill(self, unit: Unit, module: nn.Module) -> None:
        """Give a stage's module the parameters and buffers of a unit.

        Args:
            unit: whose.
            module: of its stage, which has those of the task's model.
        """

    def scheduled(self, task: Task, unit: Unit, site: Site) -> LRScheduler | None:
        """Give the optimizer of a unit its state, and make the schedule.

        Args:
            task: what is trained.
            unit: whose.
            site: of the unit.
        """
        return task.scheduler_of(site.optimizer)
