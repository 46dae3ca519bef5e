"""What makes devices unequal and late: slow units, jitter, stalls, outages; and how long messages travel.

Does not know: programs, what an action costs by itself.
"""

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from stalegrid.errors import ConfigError
from stalegrid.programs import Grid, Unit
from stalegrid.seeds import derive
from stalegrid.timing.costs import NANOSECONDS
from stalegrid.timing.links import Link
from stalegrid.timing.settings import DeviceSettings

LARGEST_SIGMA = 10
"""With more, single actions would take longer than the universe has."""

_DRAWN_AHEAD = 256


@dataclass(frozen=True, slots=True)
class Jitter:
    """How much actions differ from one another, on a device that is the same.

    Args:
        sigma: of the logarithm of each duration, whose median stays what it is.
        stall_share: probability that an action stalls.
        stall: milliseconds that it then takes longer.
    """

    sigma: float = 0.0
    stall_share: float = 0.0
    stall: float = 0.0

    def __post_init__(self) -> None:
        if not (0 <= self.sigma <= LARGEST_SIGMA and 0 <= self.stall_share <= 1 and 0 <= self.stall < math.inf):
            raise ConfigError(
                f"jitter needs sigma from 0 to {LARGEST_SIGMA}, a share of stalls from 0 to 1, and stalls of 0 ms or "
                f"more (sigma: {self.sigma}, share: {self.stall_share}, stall: {self.stall})"
            )

    def draws(self, seed: int, unit: Unit) -> Iterator[tuple[float, int]]:
        """Yield for each action of a unit what its duration is multiplied by, and the nanoseconds added."""
        generator = np.random.default_rng(derive(seed, "jitter", unit.group, unit.stage))
        stall = round(self.stall * NANOSECONDS)
        while True:
            factors = np.exp(self.sigma * generator.standard_normal(_DRAWN_AHEAD)).tolist()
            stalls = (generator.random(_DRAWN_AHEAD) < self.stall_share).tolist()
            yield from ((factor, stall if stalled else 0) for factor, stalled in zip(factors, stalls, strict=True))

    def __bool__(self) -> bool:
        return bool(self.sigma or (self.stall_share and self.stall))


@dataclass(frozen=True, slots=True)
class Outage:
    """A time in which a unit begins no action, or nothing leaves on a link; what is under way is finished.

    Args:
        source: the unit, or the sender of the link.
        target: the receiver of the link; None for the unit itself.
        start: milliseconds since the run began.
        end: milliseconds.
    """

    source: Unit
    target: Unit | None
    start: float
    end: float

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end < math.inf:
            raise ConfigError(f"an outage ends after it starts, at 0 ms or later (outage: {self.start}-{self.end})")

    def after(self, time: int) -> int:
        """Return when something that is ready at a time may begin, in nanoseconds."""
        inside = self.start * NANOSECONDS <= time < self.end * NANOSECONDS
        return round(self.end * NANOSECONDS) if inside else time


@dataclass(frozen=True, slots=True)
class Disturbances:
    """What happens to equal devices.

    Args:
        link: between stages of a group.
        lateral_link: between groups.
        jitter: of every action.
        slow: units whose every action takes so many times as long.
        outages: of units and links.
        seed: of what is drawn.
    """

    link: Link = field(default_factory=Link)
    lateral_link: Link = field(default_factory=Link)
    jitter: Jitter = Jitter()
    slow: Mapping[Unit, float] = field(default_factory=dict)
    outages: tuple[Outage, ...] = ()
    seed: int = 0

    @classmethod
    def parse(cls, devices: DeviceSettings, grid: Grid, seed: int) -> "Disturbances":
        """Return what a user wrote, checked.

        Args:
            devices: what was written.
            grid: whose units may be named.
            seed: of the run.

        Raises:
            ConfigError: it has no meaning, or names a unit that does not exist.
        """
        stalls = devices.stalls or [0.0, 0.0]
        if len(stalls) != 2:
            raise ConfigError(f"stalls are SHARE,MILLISECONDS (stalls: {stalls})")
        made = cls(
            link=Link.parse(devices.link),
            lateral_link=Link.parse(devices.lateral_link),
            jitter=Jitter(devices.jitter, *stalls),
            slow=parse_slow(devices.slow, grid.stages),
            outages=parse_outages(devices.outages, grid.stages),
            seed=seed,
        )
        for unit in _named(made.slow, made.outages):
            if unit not in grid:
                raise ConfigError(
                    f"there is no such unit (unit: {unit.group},{unit.stage}, groups: {grid.groups}, stages: "
                    f"{grid.stages}); units are GROUP,STAGE, counted from 0"
                )
        return made

    def delays(self, source: Unit, target: Unit | None) -> tuple[Outage, ...]:
        """Return the outages of a unit, or of a link, in their order in time."""
        found = (o for o in self.outages if (o.source, o.target) == (source, target))
        return tuple(sorted(found, key=lambda o: o.start))


_UNIT = r"(\d+(?:,\d+)?)"
_NUMBER = r"([\d.]+)"


def parse_slow(text: str | None, stages: int = 1) -> dict[Unit, float]:
    """Read ``1,2=3.0`` or several of these with semicolons between: unit (1,2) takes three times as long.

    Args:
        text: what was written; a unit may also be the number of a device, counted group by group.
        stages: K.

    Raises:
        ConfigError: it is not written so, a factor is not above 0, or a unit is named twice.
    """
    found: dict[Unit, float] = {}
    for entry in _entries(text):
        match = re.fullmatch(rf"{_UNIT}={_NUMBER}", entry)
        if match is None or (factor := _number(match[2])) is None or not 0 < factor < math.inf:
            raise ConfigError(
                f"a slow unit is GROUP,STAGE=FACTOR with a factor above 0, several with ; between (slow: {entry!r})"
            )
        unit = _unit(match[1], stages)
        if unit in found:
            raise ConfigError(f"a unit is slow once (slow: {text!r}, unit: {unit}); leave out the one or the other")
        found[unit] = factor
    return found


def parse_outages(text: str | None, stages: int = 1) -> tuple[Outage, ...]:
    """Read ``0,1@1000-3000`` (a unit) or ``0,1>0,2@1000-3000`` (a link), in ms, several with semicolons between.

    Args:
        text: what was written; a unit may also be the number of a device, counted group by group.
        stages: K.

    Raises:
        ConfigError: it is not written so.
    """
    found: list[Outage] = []
    for entry in _entries(text):
        match = re.fullmatch(rf"{_UNIT}(?:>{_UNIT})?@{_NUMBER}-{_NUMBER}", entry)
        times = [] if match is None else [_number(match[3]), _number(match[4])]
        if match is None or None in times:
            raise ConfigError(
                "an outage is UNIT@START-END or UNIT>UNIT@START-END in ms, with units as GROUP,STAGE, several with ; "
                f"between (outage: {entry!r})"
            )
        target = None if match[2] is None else _unit(match[2], stages)
        found.append(Outage(_unit(match[1], stages), target, float(match[3]), float(match[4])))
    return tuple(found)


def has_units(devices: DeviceSettings, grid: Grid) -> bool:
    """Return whether a grid has all units that a user named."""
    slow, outages = parse_slow(devices.slow, grid.stages), parse_outages(devices.outages, grid.stages)
    return all(unit in grid for unit in _named(slow, outages))


def _named(slow: Mapping[Unit, float], outages: Sequence[Outage]) -> list[Unit]:
    return [*slow, *(o.source for o in outages), *(o.target for o in outages if o.target)]


def _unit(text: str, stages: int) -> Unit:
    group, comma, stage = text.partition(",")
    return Unit(int(group), int(stage)) if comma else Unit(*divmod(int(group), stages))


def _entries(text: str | None) -> list[str]:
    return [] if text is None else ["".join(entry.split()) for entry in text.split(";") if entry.strip()]


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None
