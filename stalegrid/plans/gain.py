"""What it gains to cut a model for devices that are not alike, in virtual time.

Does not know: how the cuts were found, tensors.
"""

import dataclasses
from dataclasses import dataclass

from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.programs import Lateral


@dataclass(frozen=True, slots=True)
class Gain:
    """The same run with two cuts.

    Args:
        cuts: for the devices as they are.
        alike: as for devices that are alike.
        batch: milliseconds a batch with the first.
        alike_batch: milliseconds a batch with the second.
    """

    cuts: list[str]
    alike: list[str]
    batch: float
    alike_batch: float

    def __str__(self) -> str:
        times = "" if not self.batch else f", {self.alike_batch / self.batch:.3g} times as fast"
        return (
            f"cut for unequal devices at {','.join(self.cuts)}: {self.batch:.4g} ms/batch{times} as cut for equal ones "
            f"at {','.join(self.alike)}: {self.alike_batch:.4g} ms/batch (estimated)"
        )


def gain_of(plan: Plan | ServedPlan) -> Gain | None:
    """Return what the cuts of a plan gain; None where they are those for devices that are alike, or the user's."""
    if isinstance(plan, ServedPlan) or plan.devices.alike is None:
        return None
    program = plan.program
    schedule = dataclasses.replace(program.schedule, begins=0)

    def lateral(updates: int) -> Lateral:
        return plan.mixing.lateral(dataclasses.replace(plan.turns, updates=updates))

    both = (
        devices.estimated(program.grid, schedule, plan.view, lateral, targets_travel=program.targets_travel).batch
        for devices in (plan.devices, plan.devices.alike)
    )
    return Gain(plan.devices.cuts, plan.devices.alike.cuts, *both)
