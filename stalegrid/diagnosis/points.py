"""What units have shown, and the models that it makes: the mean over groups, and what a late gradient is of.

Does not know: losses, what is measured at a model.

A batch of group s whose gradient changes version n was forwarded by stage j at version ``n - m_j``, so the gradient is
of no version of the model but of ``w~_s(n) = (w_(s,0)(n - m_0), ..., w_(s,K-1)(n - m_(K-1)))``.
"""

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor

from stalegrid.agents import Look, counted, mean
from stalegrid.objects import State
from stalegrid.plans import Plan
from stalegrid.programs import Looks, Unit

Point = dict[str, Tensor]
"""Parameters and buffers of a whole model, by name."""


class Shown:
    """What units have shown, as long as a version to come is diagnosed with it.

    Args:
        plan: of the run.
        looks: when units show themselves.
    """

    def __init__(self, plan: Plan, looks: Looks) -> None:
        self._plan = plan
        self._looks = looks
        self._kept: dict[tuple[int, Unit], Look] = {}

    def take(self, version: int, looks: Mapping[Unit, Look]) -> None:
        """Take what units show at a version."""
        self._kept |= {(version, unit): look for unit, look in looks.items()}

    def forget(self, version: int) -> None:
        """Forget what no version after this one is diagnosed with."""
        self._kept = {place: look for place, look in self._kept.items() if self._due(*place) > version}

    def whole(self, group: int, versions: Sequence[int]) -> list[Look] | None:
        """Return what the units of a group have shown at the version of each stage; None where one has not."""
        places = ((version, Unit(group, k)) for k, version in enumerate(versions))
        found = [self._kept.get(place) for place in places]
        return None if any(look is None for look in found) else [look for look in found if look is not None]

    def groups(self, versions: Sequence[int]) -> list[list[Look]] | None:
        """Return it of all groups; None where one has not shown all of it."""
        found = [self.whole(group, versions) for group in self._plan.turns.members]
        return None if any(own is None for own in found) else [own for own in found if own is not None]

    def state_dict(self) -> State:
        """Return all that is kept."""
        return {"shown": [(version, tuple(unit), tuple(look)) for (version, unit), look in self._kept.items()]}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._kept = {(version, Unit(*unit)): Look(*look) for version, unit, look in state["shown"]}

    def _due(self, version: int, unit: Unit) -> int:
        """Return the last version that is diagnosed with what a unit shows at another one."""
        return max(version + ago for ago in self._looks.ago[unit.stage] if self._looks.diagnosed(version + ago))


def point(plan: Plan, vectors: Iterable[Tensor], counters: Iterable[Tensor]) -> Point:
    """Return the model that vectors of all stages make.

    Args:
        plan: of the run.
        vectors: parameters and running statistics of each stage.
        counters: its buffers of whole numbers.
    """
    found: Point = {}
    for layout, vector, numbers in zip(plan.stages, vectors, counters, strict=True):
        found |= {entry.name: entry.view(vector) for entry in layout.entries}
        found |= counted(layout, numbers)
    return found


def point_of(plan: Plan, looks: Sequence[Look]) -> Point:
    """Return the model of a group."""
    return point(plan, (look.vector for look in looks), (look.counters for look in looks))


def mean_point(plan: Plan, groups: Sequence[Sequence[Look]]) -> Point:
    """Return the mean model over groups, as evaluations measure it."""
    weights = list(plan.turns.weights.values())
    means = (mean([own[k].vector for own in groups], layout, weights) for k, layout in enumerate(plan.stages))
    return point(plan, means, (look.counters for look in groups[0]))


def trained(plan: Plan, looks: Sequence[Look]) -> Tensor:
    """Return what a group trains as one vector in double precision, in main memory, shape (n,)."""
    parts = (look.vector[: read.trained] for look, read in zip(looks, plan.stages, strict=True))
    return torch.cat([part.double().cpu() for part in parts])
