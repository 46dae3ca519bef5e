"""A table of costs with a column a device, and the links between their hosts.

Does not know: programs, who measured it.

Stages keep the order of devices: stage k of group s is on device s K + k, whatever would be faster.  What is chosen is
how many parts of the model each has.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate, permutations
from pathlib import Path
from statistics import fmean
from typing import Any

from stalegrid.errors import ConfigError
from stalegrid.partition import divide
from stalegrid.programs import Grid, Unit
from stalegrid.timing.costs import NANOSECONDS, Cost, CostTable, parsed
from stalegrid.timing.links import Link
from stalegrid.written import finite, to_line, write_text

TIMES = ("forward", "backward", "recompute", "update", "fixed", "mix")
"""What a part costs one device more than another; all else is the model's."""

_WAY = " > "


@dataclass(frozen=True)
class DeviceTable:
    """What the same parts of a model cost on devices that are not alike, one device a unit, group by group.

    Args:
        columns: what each device takes.
        hosts: name of each device's; between devices of one host messages take no time.
        links: from each host to each other one.

    Raises:
        ConfigError: columns are of different models or batches, or a link is missing.
    """

    columns: tuple[CostTable, ...]
    hosts: tuple[str, ...]
    links: Mapping[tuple[str, str], Link] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.columns or len(self.columns) != len(self.hosts):
            raise ConfigError(
                f"a table of devices has a column and a host for each (columns: {len(self.columns)}, hosts: "
                f"{len(self.hosts)})"
            )
        for device, column in enumerate(self.columns[1:], start=1):
            _check_alike(self.columns[0], column, device)
        ways = set(permutations(dict.fromkeys(self.hosts), 2))
        if missing := sorted(ways - set(self.links)):
            raise ConfigError(
                f"the table of devices does not say how hosts are linked (missing: "
                f"{'; '.join(map(_WAY.join, missing))}); profile all hosts together, or write a line for each way, "
                "such as 'a > b: [1, 100]' for 1 ms and 100 Mbit/s"
            )
        if unknown := sorted(set(self.links) - ways):
            raise ConfigError(
                f"the table of devices links what are no two hosts of it (links: {'; '.join(map(_WAY.join, unknown))}, "
                f"hosts: {', '.join(dict.fromkeys(self.hosts))})"
            )

    @cached_property
    def typical(self) -> CostTable:
        """The table of a device that takes the mean of what all take; its cuts are those for devices that are alike."""
        parts = tuple(map(_mean, zip(*(column.parts for column in self.columns), strict=True)))
        return replace(self.columns[0], parts=parts, handling=fmean(column.handling for column in self.columns))

    @property
    def batch_size(self) -> int:
        """Samples that the costs are for."""
        return self.columns[0].batch_size

    @property
    def parts(self) -> tuple[Cost, ...]:
        """What the parts cost a typical device."""
        return self.typical.parts

    @property
    def handling(self) -> float:
        """What a typical device spends on each MB."""
        return self.typical.handling

    @property
    def named(self) -> bool:
        """Whether the parts have names."""
        return self.columns[0].named

    def each(self, change: Callable[[CostTable], CostTable]) -> "DeviceTable":
        """Return the table with every column changed."""
        return replace(self, columns=tuple(map(change, self.columns)))

    def of_batch(self, batch_size: int) -> "DeviceTable":
        """Return the table for batches of another size."""
        return self.each(lambda column: column.of_batch(batch_size))

    def joined(self, bounds: Sequence[int]) -> "DeviceTable":
        """Return the table whose parts are stages; see :meth:`CostTable.joined`."""
        return self.each(lambda column: column.joined(bounds))

    def check(self, grid: Grid) -> None:
        """Check that there is a device for each unit.

        Raises:
            ConfigError: there is not.
        """
        if len(self.columns) != len(grid):
            raise ConfigError(
                f"the table has another number of devices than the grid has units (devices: {len(self.columns)}, "
                f"groups: {grid.groups}, stages: {grid.stages}); profile with a process for each unit, or choose "
                f"groups x stages = {len(self.columns)}"
            )

    def bounds(self, grid: Grid, cuts: Sequence[str] | None = None) -> list[int]:
        """Return where stages begin and the last one ends; without cuts of the user, so that the slowest is fastest.

        A stage takes what its device does, or what its port is occupied with activations and gradients if that is more,
        since messages travel behind compute; of several groups the slowest counts.

        Args:
            grid: of the run.
            cuts: names of the parts that begin stages 1..K-1.

        Raises:
            ConfigError: there are not as many devices as units, or parts as stages, or none of such a name.
        """
        self.check(grid)
        alike = self.typical.bounds(grid, cuts)
        if cuts is not None:
            return alike
        stages = [[_Stage(self, grid, Unit(s, k)) for s in range(grid.groups)] for k in range(grid.stages)]

        def cost(stage: int, start: int, stop: int) -> float:
            return max(one.taken(start, stop) for one in stages[stage])

        found = divide(len(self.parts), grid.stages, range(1, len(self.parts)), cost, lambda start, stop: True)
        assert found is not None
        return [0, *found, len(self.parts)]

    def of(self, unit: Unit) -> CostTable:
        """Return the column of a unit, in a table whose parts are stages."""
        return self.columns[unit.group * len(self.columns[0].parts) + unit.stage]

    def link(self, source: Unit, target: Unit) -> Link:
        """Return how messages travel between units, in a table whose parts are stages."""
        stages = len(self.columns[0].parts)
        return self.between(*(unit.group * stages + unit.stage for unit in (source, target)))

    def between(self, source: int, target: int) -> Link:
        """Return how messages travel between devices."""
        a, b = self.hosts[source], self.hosts[target]
        return Link() if a == b else self.links[a, b]

    def plain(self) -> dict[str, Any]:
        """Return the table as plain values, such as :meth:`parse` takes."""
        parts = self.columns[0].plain()["parts"]
        for i, part in enumerate(parts):
            times = {name: [getattr(column.parts[i], name) for column in self.columns] for name in TIMES}
            part.update({name: each for name, each in times.items() if any(time is not None for time in each)})
        return {
            "batch_size": self.batch_size,
            "devices": list(self.hosts),
            "links": {_WAY.join(way): link.plain() for way, link in self.links.items()},
            "handling": [column.handling for column in self.columns],
            "parts": parts,
        }

    def write(self, path: Path) -> None:
        """Write the table as YAML, a line a part."""
        content = self.plain()
        parts = "".join(f"- {to_line(part)}\n" for part in content.pop("parts"))
        head = "".join(f"{name}: {to_line(value)}\n" for name, value in content.items())
        write_text(path, f"{head}parts:\n{parts}")

    @classmethod
    def parse(cls, content: Mapping[str, Any]) -> "DeviceTable":
        """Return the table of plain values, in which a time is one for all devices or one for each.

        Raises:
            ConfigError: they say something that has no meaning.
        """
        hosts, links = content["devices"], content.get("links", {})
        if not isinstance(hosts, list) or not hosts or not all(isinstance(host, str) and host for host in hosts):
            raise ConfigError(f"devices is a list of the name of each one's host (devices: {hosts!r})")
        if not isinstance(links, Mapping):
            raise ConfigError(f"links is a way to each line, such as 'a > b: [1, 100]' (links: {links!r})")
        rest = {name: value for name, value in content.items() if name not in ("devices", "links")}
        columns = (CostTable.parse(_column(rest, device, len(hosts))) for device in range(len(hosts)))
        return cls(tuple(columns), tuple(hosts), dict(_link(str(way), numbers) for way, numbers in links.items()))


class _Stage:
    """What parts of the model take as a stage of one unit."""

    def __init__(self, table: DeviceTable, grid: Grid, unit: Unit) -> None:
        device = unit.group * grid.stages + unit.stage
        column = table.columns[device]
        self._work = [0.0, *accumulate(p.forward + p.backward + p.update for p in column.parts)]
        self._parts, self._handling = column.parts, column.handling
        self._before = None if unit.stage == 0 else table.between(device, device - 1)
        self._after = None if unit.stage == grid.stages - 1 else table.between(device, device + 1)

    def taken(self, start: int, stop: int) -> float:
        """Return the milliseconds a batch of parts start..stop-1."""
        handled, occupied = 0, 0
        if self._before is not None:
            activations, gradients = self._crossing(start)
            handled, occupied = activations + gradients, self._before.occupied(gradients)
        if self._after is not None and stop < len(self._parts):
            activations, gradients = self._crossing(stop)
            handled, occupied = handled + activations + gradients, occupied + self._after.occupied(activations)
        computed = self._work[stop] - self._work[start] + self._handling * handled / 1e6
        return max(computed, occupied / NANOSECONDS)

    def _crossing(self, cut: int) -> tuple[int, int]:
        """Return the bytes of activations and of gradients that cross a cut in a batch."""
        below, above = self._parts[cut - 1], self._parts[cut]
        return below.output, 0 if below.frozen else above.input


def read_costs(path: Path) -> CostTable | DeviceTable:
    """Read a table of one device or of several, as its file says.

    Raises:
        ConfigError: it cannot be read, or says something that has no meaning.
    """
    return parsed(path, parse_costs)


def parse_costs(content: Any) -> CostTable | DeviceTable:
    """Return the table of plain values, of one device or of several.

    Raises:
        ConfigError: they say something that has no meaning.
    """
    several = isinstance(content, Mapping) and "devices" in content
    return DeviceTable.parse(content) if several else CostTable.parse(content)


def _mean(costs: Sequence[Cost]) -> Cost:
    """Return what a part takes a device that takes the mean."""
    return replace(
        costs[0],
        forward=fmean(cost.forward for cost in costs),
        backward=fmean(cost.backward for cost in costs),
        recompute=fmean(cost.second_forward for cost in costs),
        update=fmean(cost.update for cost in costs),
        fixed=fmean(cost.fixed for cost in costs),
        mix=fmean(cost.mix for cost in costs),
    )


def _check_alike(first: CostTable, other: CostTable, device: int) -> None:
    """Refuse a column that is of another model or of other batches than the first."""
    remedy = "profile the same model, data and batch size on all"
    sizes = (first.batch_size, other.batch_size)
    if sizes[0] != sizes[1]:
        raise ConfigError(
            f"devices have costs of different batches (devices: 0, {device}, batch_size: {sizes}); {remedy}"
        )
    model, its = (tuple(map(_timeless, table.parts)) for table in (first, other))
    if model != its:
        name = next(
            (a.name for a, b in zip(model, its, strict=False) if a != b), f"{len(its)} parts in place of {len(model)}"
        )
        raise ConfigError(f"devices have costs of different models (devices: 0, {device}, part: {name!r}); {remedy}")


def _timeless(cost: Cost) -> Cost:
    return replace(cost, forward=0.0, backward=0.0, recompute=None, update=0.0, fixed=0.0, mix=0.0)


def _column(content: Mapping[str, Any], device: int, devices: int) -> dict[str, Any]:
    """Return what a table says of one of its devices; what has no meaning is left to whoever reads the column."""
    parts = content.get("parts")
    if isinstance(parts, list):
        parts = [
            {name: _of(device, devices, name, value) for name, value in part.items()}
            if isinstance(part, Mapping)
            else part
            for part in parts
        ]
    handling = _of(device, devices, "handling", content.get("handling", 0.0))
    return {**content, "handling": handling, "parts": parts}


def _of(device: int, devices: int, name: Any, value: Any) -> Any:
    if name not in (*TIMES, "handling") or not isinstance(value, list):
        return value
    if len(value) != devices:
        raise ConfigError(
            f"a time is a number for all devices, or one for each ({name}: {len(value)} numbers, devices: {devices})"
        )
    return value[device]


def _link(way: str, numbers: Any) -> tuple[tuple[str, str], Link]:
    source, between, target = (text.strip() for text in way.partition(">"))
    if not (between and isinstance(numbers, list) and all(map(finite, numbers))):
        raise ConfigError(
            f"a link is 'FROM > TO: [LATENCY, BANDWIDTH]' in ms and Mbit/s (link: {way!r}, numbers: {numbers!r})"
        )
    return (source, target), Link.parse(numbers)
