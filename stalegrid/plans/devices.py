"""What a run knows of its devices: what stages cost there, what disturbs them, how much staleness they need.

Does not know: tensors, engines.
"""

from collections.abc import Callable
from dataclasses import dataclass

from stalegrid.consensus import weights_of
from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import Method
from stalegrid.methods import schedule as schedule_of
from stalegrid.programs import Edge, Grid, Lateral, Program, Ties
from stalegrid.stages import View
from stalegrid.timing import (
    Cost,
    CostTable,
    DeviceSettings,
    Disturbances,
    TimeModel,
    estimate,
    frozen_stages,
    least_staleness,
    long_enough,
    message_bytes,
    ties_of,
)

ESTIMATED = 200
"""Updates over which a throughput is estimated, at least."""


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a run.

    Args:
        disturbances: what makes them unequal and late.
        costs: of each stage; None where none are known.
        handling: milliseconds of a unit's own time for each MB that it sends or receives.
        portions: what part of the largest batch, which the costs are for, each group takes; all of it if left out.
    """

    disturbances: Disturbances
    costs: tuple[Cost, ...] | None
    handling: float = 0.0
    portions: tuple[float, ...] = ()

    def time_model(self, program: Program, nbytes: Callable[[Edge], int] | None = None) -> TimeModel:
        """Return what a program's actions take and its messages weigh, where costs are known.

        Args:
            program: whose.
            nbytes: of every message of an edge; what the costs say if left out.
        """
        assert self.costs is not None
        weigh = message_bytes(self.costs, program) if nbytes is None else nbytes
        micro = program.schedule.micro_batches
        return TimeModel(self.costs, micro, self.handling, weigh, self.disturbances, portions=self.portions)

    def enough_staleness(
        self,
        method: Method,
        grid: Grid,
        view: type[View],
        micro_batches: int,
        lateral: Callable[[int], Lateral],
        within: float,
        *,
        targets_travel: bool = False,
    ) -> list[int]:
        """Return the least staleness that is about as fast as any.

        Args:
            method: that has a staleness.
            grid: of the run.
            view: of late backwards.
            micro_batches: M.
            lateral: when groups exchange in a run of so many updates.
            within: share of the best throughput that may be missed.
            targets_travel: whether they do.

        Raises:
            ConfigError: no costs are known, or the share is none.
        """
        if not method.stale:
            raise ConfigError(
                f"{method.name} flushes at every update and has no staleness (staleness: auto); leave it out"
            )
        if self.costs is None:
            raise ConfigError(
                "staleness auto is estimated from costs (costs: None); measure them with stalegrid profile --out FILE, "
                "and give --costs FILE"
            )
        check_share(within)
        frozen, ties = frozen_stages(self.costs), Ties(ties_of(self.costs), always=view.elsewhere and not view.delay)

        def batch(staleness: list[int]) -> float:
            schedule = schedule_of(method, grid.stages, staleness, None, micro_batches, view.delay)
            updates = long_enough(schedule, ESTIMATED)
            exchanges = lateral(updates)
            program = Program(grid, schedule, updates, exchanges, None, view.recomputes, frozen, targets_travel, ties)
            return estimate(program, self.time_model(program)).batch

        return least_staleness(grid.stages, batch, within)


def check_share(within: float) -> None:
    """Check a share of the best throughput that may be missed.

    Raises:
        ConfigError: it is none.
    """
    if not 0 <= within < 1:
        raise ConfigError(f"within is a share of the throughput, from 0 to below 1 (within: {within})")


def settle_devices(
    asked: DeviceSettings,
    grid: Grid,
    cuts: list[str] | None,
    training: TrainingSettings,
    table: CostTable | None,
    *,
    virtual: bool,
) -> tuple[Devices, list[str] | None]:
    """Settle and check what is known of the devices.

    Args:
        asked: by the user.
        grid: of the run.
        cuts: where the user cuts the model, if that is settled.
        training: of the run.
        table: what the model costs; what the user names if left out.
        virtual: whether time is computed, not spent.

    Returns:
        The devices, and the names where the model is cut, if that is settled.

    Raises:
        ConfigError: what is asked for has no meaning, or not on this engine.
    """
    disturbances = Disturbances.parse(asked, grid, training.seed)
    if table is None and asked.costs is not None:
        table = CostTable.read(asked.costs)
    if virtual and table is None and disturbances != Disturbances(seed=training.seed):
        raise ConfigError(
            "slow, jitter, stalls, links and outages need a clock, which the simulator has only where costs are known; "
            "measure them with stalegrid profile --out FILE, and give --costs FILE"
        )
    _check(asked, table, virtual)
    if table is None:
        return Devices(disturbances, None), cuts
    table = table.of_batch(max(1, training.largest))
    portions = weights_of([max(1, size) for size in training.sizes(grid.groups)])
    if len(table.parts) == grid.stages and (cuts is not None or not table.named):
        return Devices(disturbances, table.parts, table.handling, portions), cuts
    costs = table.cut(grid.stages, cuts)
    return Devices(disturbances, costs, table.handling, portions), [cost.name for cost in costs[1:]]


def _check(asked: DeviceSettings, table: CostTable | None, virtual: bool) -> None:
    if not virtual and (asked.link or asked.lateral_link or asked.outages):
        raise ConfigError(
            "links and outages are not emulated on processes (link, lateral_link, outages); take engine simulator"
        )
    if asked.emulate and (virtual or table is None):
        raise ConfigError("emulate is for processes and needs costs; give --engine processes --costs FILE")
