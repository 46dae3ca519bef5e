"""Where a view or a correction acts: one unit, its weights and its optimizer.

Does not know: what views and corrections do.
"""

from collections.abc import Callable, Collection
from dataclasses import dataclass

from torch import Tensor, nn
from torch.optim import Optimizer

from stalegrid.programs import Program, Schedule, Unit
from stalegrid.stages.optimizers.given import Named
from stalegrid.stages.weights import Versions, Weights


@dataclass(frozen=True, slots=True)
class Site:
    """What a view or a correction may read.

    Args:
        unit: its coordinates.
        schedule: how far every stage runs ahead.
        updates: N, of the run.
        weights: of the unit.
        versions: their past.
        optimizer: over them.
    """

    unit: Unit
    schedule: Schedule
    updates: int
    weights: Weights
    versions: Versions
    optimizer: Optimizer

    @classmethod
    def build(
        cls,
        unit: Unit,
        program: Program,
        module: nn.Module,
        optimizer: Callable[[Named], Optimizer],
        moving: Collection[str] = (),
    ) -> "Site":
        """Take a stage's module, whose parameters move into one vector, and make its optimizer.

        Args:
            unit: its coordinates.
            program: of the run.
            module: of the stage.
            optimizer: named parameters -> their optimizer.
            moving: frozen parameters that its forward changes.
        """
        weights = Weights(module, moving, program.ties.mirrored(unit.stage).values())
        schedule = program.schedule_of(unit.group)
        weights.version = schedule.begins
        own = optimizer(weights.named())
        return cls(unit, schedule, program.updates, weights, Versions(weights), own)

    @property
    def bound(self) -> int:
        """Staleness in updates that no gradient of the unit exceeds."""
        return self.schedule.bound(self.unit.stage)


def part(vector: Tensor, parameter: Tensor) -> Tensor:
    """Return the place of a parameter in another vector of the layout of its stage.

    Args:
        vector: of parameters, shape (trained,) or longer.
        parameter: of the stage.

    Returns:
        A view of the vector, of the parameter's shape.
    """
    # A parameter is a view of the vector of its stage, so its own offset is its place in it.
    return vector.as_strided(parameter.shape, parameter.stride(), parameter.storage_offset())
