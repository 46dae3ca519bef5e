"""Who exists: the units of a grid of S groups x K stages.

Does not know: torch, time, ranks, what a unit computes.

Legend for the whole library: S groups ``s``, K stages ``k``, batch ``b`` within a group, version ``v`` (updates a
unit has applied), update ``n``.  Everything counts from 0.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from stalegrid.errors import ConfigError


class Unit(NamedTuple):
    """Stage ``stage`` of the replica that group ``group`` trains."""

    group: int
    stage: int

    def __str__(self) -> str:
        if self == OBSERVER:
            return "observer"
        return f"server {self.stage}" if self.group == _SERVERS else f"({self.group},{self.stage})"


# Below 0, so that neither the observer nor a server is ever a unit of a grid.
OBSERVER = Unit(-1, -1)
"""The agent that collects reports and snapshots and measures the model; it stands outside the grid."""

_SERVERS = -2

MOST = 1000
"""Groups, and stages, of a grid: more than anybody has, and few enough to count them all."""


def learner(number: int) -> Unit:
    """Return the unit of a learner: a group with a single stage, the whole model."""
    return Unit(number, 0)


def server(shard: int) -> Unit:
    """Return the parameter server of one shard of the parameters; servers stand outside the grid."""
    return Unit(_SERVERS, shard)


@dataclass(frozen=True, slots=True)
class Grid:
    """S x K units, group by group.

    Raises:
        ConfigError: a side is smaller than 1, or larger than makes sense.
    """

    groups: int
    stages: int

    def __post_init__(self) -> None:
        for name, value in (("groups", self.groups), ("stages", self.stages)):
            if value < 1:
                raise ConfigError(f"a grid needs at least one of its {name} ({name}: {value})")
            if value > MOST:
                raise ConfigError(f"a grid has at most {MOST} of its {name} ({name}: {value})")

    def __len__(self) -> int:
        return self.groups * self.stages

    def __iter__(self) -> Iterator[Unit]:
        return (Unit(s, k) for s in range(self.groups) for k in range(self.stages))
