"""What a run knows of its devices: what stages cost there, what disturbs them, how much staleness they need.

Does not know: tensors, engines.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Optional

from stalegrid.consensus import weights_of
from stalegrid.data import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.methods import Method
from stalegrid.methods import schedule as schedule_of
from stalegrid.plans.exchanged import Exchanged
from stalegrid.plans.gain import Gain
from stalegrid.programs import Edge, Grid, Lateral, Program, Schedule, Ties
from stalegrid.stages import View
from stalegrid.timing import (
    Cost,
    CostTable,
    DeviceSettings,
    DeviceTable,
    Disturbances,
    Estimate,
    Link,
    TimeModel,
    estimate,
    frozen_stages,
    least_staleness,
    long_enough,
    message_bytes,
    read_costs,
    ties_of,
)

ESTIMATED = 200
"""Updates over which a throughput is estimated, at least."""


@dataclass(frozen=True, slots=True)
class Devices:
    """The devices of a run.

    Args:
        disturbances: what makes them unequal and late.
        costs: of each stage, on a typical device; None where none are known.
        handling: milliseconds of a unit's own time for each MB that it sends or receives, likewise.
        unequal: what each unit's own device takes, its parts being the stages; None where all are alike.
        alike: the same devices if the model were cut as for devices that are alike; None where it is, or it is settled
            which cut is taken.
        gain: of the cut that is taken, over that one; None where that is taken, or not settled.
        portions: what part of the largest batch, which the costs are for, each group takes; all of it if left out.
        exchanged: what groups exchange; None where they are not known to.
    """

    disturbances: Disturbances
    costs: tuple[Cost, ...] | None
    handling: float = 0.0
    unequal: DeviceTable | None = None
    alike: Optional["Devices"] = None
    gain: Gain | None = None
    portions: tuple[float, ...] = ()
    exchanged: Exchanged | None = None

    @classmethod
    def of(
        cls, disturbances: Disturbances, stages: CostTable | DeviceTable, portions: tuple[float, ...] = ()
    ) -> "Devices":
        """Return the devices of a table whose parts are the stages.

        Raises:
            ConfigError: links are told in the table and otherwise too.
        """
        unequal = stages if isinstance(stages, DeviceTable) else None
        if unequal is not None and unequal.links:
            for name, link in (("link", disturbances.link), ("lateral_link", disturbances.lateral_link)):
                if link != Link():
                    raise ConfigError(
                        f"the table of devices says how hosts are linked (devices.{name}: {link.plain()}); leave it "
                        "out, or write the numbers into the table"
                    )
        return cls(disturbances, stages.parts, stages.handling, unequal, portions=portions)

    @classmethod
    def cut(
        cls,
        disturbances: Disturbances,
        table: CostTable | DeviceTable,
        grid: Grid,
        cuts: list[str] | None,
        portions: tuple[float, ...] = (),
    ) -> "Devices":
        """Return the devices that take what a table says of stages, which lie between cuts.

        Args:
            disturbances: of the run.
            table: of the costs.
            grid: of the run.
            cuts: names of the parts that begin stages 1..K-1; None for those whose slowest stage is fastest.
            portions: what part of the largest batch each group takes; all of it if left out.

        Raises:
            ConfigError: the table does not suit the grid or the cuts, or links are told twice.
        """
        bounds = table.bounds(grid, cuts)
        made = cls.of(disturbances, table.joined(bounds), portions)
        if isinstance(table, DeviceTable) and cuts is None:
            alike = table.typical.bounds(grid)
            if alike != bounds:
                return replace(made, alike=cls.of(disturbances, table.joined(alike), portions))
        return made

    def exchanging(self, exchanged: Exchanged) -> "Devices":
        """Return the devices of a run whose groups exchange something."""
        alike = None if self.alike is None else self.alike.exchanging(exchanged)
        return replace(self, exchanged=exchanged, alike=alike)

    @property
    def period(self) -> int:
        """Updates from one mixing of parameters to the next, of which an estimate has several."""
        return 1 if self.exchanged is None else self.exchanged.period

    @property
    def cuts(self) -> list[str]:
        """Names of the parts that begin stages 1..K-1."""
        assert self.costs is not None
        return [cost.name for cost in self.costs[1:]]

    def time_model(self, program: Program, nbytes: Callable[[Edge], int] | None = None) -> TimeModel:
        """Return what a program's actions take and its messages weigh, where costs are known.

        Args:
            program: whose.
            nbytes: of every message of an edge; what the costs say if left out.
        """
        assert self.costs is not None
        if nbytes is None:
            exchanged = None if self.exchanged is None else self.exchanged.nbytes
            nbytes = message_bytes(self.costs, program, exchanged)
        micro = program.schedule.micro_batches
        told = self.costs, micro, self.handling, nbytes, self.disturbances
        return TimeModel(*told, portions=self.portions, unequal=self.unequal)

    def program(
        self,
        grid: Grid,
        schedule: Schedule,
        view: type[View],
        lateral: Callable[[int], Lateral],
        *,
        targets_travel: bool = False,
    ) -> Program:
        """Return a program of stages that cost so much, long enough for its throughput to be estimated.

        Args:
            grid: of the run.
            schedule: likewise.
            view: of late backwards.
            lateral: when groups exchange in a run of so many updates.
            targets_travel: whether they do.
        """
        assert self.costs is not None
        # So that the middle half, over which it is estimated, is of whole periods.
        periods = -(-ESTIMATED // (4 * self.period))
        updates = long_enough(schedule, ESTIMATED if self.period == 1 else 4 * self.period * periods + 1)
        frozen, ties = frozen_stages(self.costs), Ties(ties_of(self.costs), always=view.elsewhere and not view.delay)
        return Program(grid, schedule, updates, lateral(updates), None, view.recomputes, frozen, targets_travel, ties)

    def estimated(
        self,
        grid: Grid,
        schedule: Schedule,
        view: type[View],
        lateral: Callable[[int], Lateral],
        *,
        targets_travel: bool = False,
    ) -> Estimate:
        """Return what a run takes on them; see :meth:`program`."""
        program = self.program(grid, schedule, view, lateral, targets_travel=targets_travel)
        return estimate(program, self.time_model(program))

    def faster(
        self,
        grid: Grid,
        schedule: Schedule,
        view: type[View],
        lateral: Callable[[int], Lateral],
        *,
        targets_travel: bool = False,
    ) -> "Devices":
        """Return the devices with whichever cut the clock finds faster, and what that gains; see :meth:`program`.

        A cut looks at the slowest stage alone.  Second forwards, latency and flushes may make another one faster.
        """
        if self.alike is None:
            return self
        batch, other = (
            devices.estimated(grid, schedule, view, lateral, targets_travel=targets_travel).batch
            for devices in (self, self.alike)
        )
        if other < batch:
            return self.alike
        return replace(self, alike=None, gain=Gain(self.cuts, self.alike.cuts, batch, other))

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

        def batch(staleness: list[int]) -> float:
            schedule = schedule_of(method, grid.stages, staleness, None, micro_batches, view.delay)
            return self.estimated(grid, schedule, view, lateral, targets_travel=targets_travel).batch

        return least_staleness(grid.stages, batch, within)


def check_share(within: float) -> None:
    """Check a share of the best throughput that may be missed.

    Raises:
        ConfigError: it is none.
    """
    if not 0 <= within < 1:
        raise ConfigError(f"within is a share of the throughput, from 0 to below 1 (within: {within})")


@contextmanager
def cutting(asked: list[str] | None, cuts: list[str] | None) -> Iterator[None]:
    """Say where cuts come from at which a model cannot be cut.

    Args:
        asked: cuts of the user.
        cuts: of the run; those of a table where the user names none.

    Raises:
        ConfigError: the model cannot be cut.
    """
    try:
        yield
    except ConfigError as problem:
        if asked is not None or not cuts:
            raise
        raise ConfigError(
            f"the model cannot be cut where the cost table says (cuts: {', '.join(cuts)}): {problem}; is it that of "
            "another model? Profile this one, or name the cuts"
        ) from problem


def settle_devices(
    asked: DeviceSettings,
    grid: Grid,
    cuts: list[str] | None,
    training: TrainingSettings,
    table: CostTable | DeviceTable | None,
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
        table = read_costs(asked.costs)
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
        if isinstance(table, DeviceTable):
            table.check(grid)
        return Devices.of(disturbances, table, portions), cuts
    devices = Devices.cut(disturbances, table, grid, cuts, portions)
    return devices, devices.cuts


def _check(asked: DeviceSettings, table: CostTable | DeviceTable | None, virtual: bool) -> None:
    if not virtual and (asked.link or asked.lateral_link or asked.outages):
        raise ConfigError(
            "links and outages are not emulated on processes (link, lateral_link, outages); take engine simulator"
        )
    if asked.emulate and (virtual or table is None):
        raise ConfigError("emulate is for processes and needs costs; give --engine processes --costs FILE")
    if asked.emulate and isinstance(table, DeviceTable) and table.links:
        raise ConfigError(
            "links are not emulated on processes, and the table of devices has some (devices.emulate: true); take "
            "engine simulator, or a table whose devices are on one host"
        )
