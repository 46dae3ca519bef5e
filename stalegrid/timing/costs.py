"""What a model costs: milliseconds and bytes of its parts, one after another.

Does not know: units, links, programs, who measured it.

Parts are as fine as a model may be cut, so sums of them are the stages of any K.  One table gives the simulator its
clock, the planner its durations, and real processes the time that they sleep until: an emulated device and a virtual
one take the same.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, TypeVar

from stalegrid.errors import ConfigError, DataError
from stalegrid.partition import balance
from stalegrid.programs import Grid, Tie
from stalegrid.written import finite, read_yaml, to_yaml, whole, write_text

NANOSECONDS = 1_000_000
"""In a millisecond; costs are told in milliseconds, time is counted in whole nanoseconds."""

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """What one part of a model costs, for the batch that one group makes one update of.

    Args:
        forward: milliseconds.
        backward: milliseconds.
        recompute: milliseconds of a second forward; as the forward if left out.
        update: milliseconds of an optimizer's step.
        fixed: milliseconds of the forward, and of the backward, that a smaller micro-batch takes all the same.
        mix: milliseconds of one exchange's arithmetic: averaging parameters or gradients of groups.
        input: bytes that the part is handed, of the batch or of the part before.
        output: bytes that it hands on.
        targets: bytes of the batch that its loss compares with; of the last part.
        parameters: bytes.
        graph: bytes that it saves for the backward of a batch.
        frozen: whether nothing is trained in it and in the parts before it, so that it has no backward.
        tied: bytes of each parameter that other parts use too, by a name that all of them give it; the first one that
            uses it counts it among its parameters.
        name: of the operation that it begins with, where ``--cuts`` may cut; leave it out for parts of no real
            model.
    """

    forward: float
    backward: float
    recompute: float | None = None
    update: float = 0.0
    fixed: float = 0.0
    mix: float = 0.0
    input: int = 0
    output: int = 0
    targets: int = 0
    parameters: int = 0
    graph: int = 0
    frozen: bool = False
    tied: Mapping[str, int] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.tied, Mapping):
            raise ConfigError(f"tied is bytes by name (tied: {self.tied!r}, part: {self.name!r})")
        numbers = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in ("name", "frozen", "tied")}
        if self.recompute is None:
            del numbers["recompute"]
        for what, value in [*numbers.items(), *((f"tied {name}", nbytes) for name, nbytes in self.tied.items())]:
            if not finite(value) or value < 0:
                raise ConfigError(f"a cost is a number, 0 or more ({what}: {value!r}, part: {self.name!r})")
        if not isinstance(self.frozen, bool):
            raise ConfigError(
                f"a part is frozen or not (frozen: {self.frozen!r}, part: {self.name!r}); say true or false"
            )

    def of_batch(self, ratio: float) -> "Cost":
        """Return the cost of a batch of another size, so many times as large: all but what is fixed grows with it."""

        def time(whole: float) -> float:
            return whole if whole <= self.fixed else self.fixed + ratio * (whole - self.fixed)

        # An optimizer's step and an exchange take the same for any batch.
        return replace(
            self,
            forward=time(self.forward),
            backward=time(self.backward),
            recompute=None if self.recompute is None else time(self.recompute),
            input=round(ratio * self.input),
            output=round(ratio * self.output),
            targets=round(ratio * self.targets),
            graph=round(ratio * self.graph),
        )

    @property
    def second_forward(self) -> float:
        """Milliseconds of a second forward."""
        return self.forward if self.recompute is None else self.recompute


@dataclass(frozen=True, slots=True)
class CostTable:
    """The parts of a model, as finely as it may be cut.

    Args:
        batch_size: samples that the costs are for.
        parts: in the order of the model.
        handling: milliseconds that a unit's own processor spends on each MB that it sends or receives; 0 where others
            do that, such as a network card or cores that have nothing else to do.
    """

    batch_size: int
    parts: tuple[Cost, ...]
    handling: float = 0.0

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise ConfigError(f"a cost table is for at least one sample (batch_size: {self.batch_size})")
        if not 0 <= self.handling < float("inf"):
            raise ConfigError(f"handling takes 0 ms or more a MB (handling: {self.handling})")
        if not self.parts:
            raise ConfigError("a cost table has at least one part (parts: none)")

    @property
    def named(self) -> bool:
        """Whether the parts have names, which then are those of the model's own operations."""
        return all(part.name not in ("", str(i)) for i, part in enumerate(self.parts[1:], start=1))

    def of_batch(self, batch_size: int) -> "CostTable":
        """Return the table for batches of another size: all but what is fixed grows with the samples."""
        if batch_size == self.batch_size:
            return self
        ratio = batch_size / self.batch_size
        return replace(self, batch_size=batch_size, parts=tuple(part.of_batch(ratio) for part in self.parts))

    def cut(self, stages: int, cuts: Sequence[str] | None = None) -> tuple[Cost, ...]:
        """Return the costs of each stage.

        Args:
            stages: K.
            cuts: names of the parts that begin stages 1..K-1; None for the cuts whose slowest stage is fastest.

        Raises:
            ConfigError: the table has fewer parts than that, or none of such a name.
        """
        return self.joined(self.bounds(Grid(1, stages), cuts)).parts

    def bounds(self, grid: Grid, cuts: Sequence[str] | None = None) -> list[int]:
        """Return the places of the parts that begin stages 0..K-1, and the number of parts; see :meth:`cut`."""
        stages = grid.stages
        if stages > len(self.parts):
            raise ConfigError(
                f"the cost table has fewer parts than stages (parts: {len(self.parts)}, stages: {stages})"
            )
        found = [0, *(self._balanced(stages) if cuts is None else map(self._find, cuts)), len(self.parts)]
        if len(found) != stages + 1 or sorted(set(found)) != found:
            raise ConfigError(f"{stages} stages need {stages - 1} cuts in the order of the table (cuts: {cuts})")
        return found

    def joined(self, bounds: Sequence[int]) -> "CostTable":
        """Return the table whose parts are stages.

        Args:
            bounds: places of the parts that begin them, and the number of parts.
        """
        stages = tuple(_merge(self.parts[start:stop]) for start, stop in itertools.pairwise(bounds))
        return replace(self, parts=stages)

    def _balanced(self, stages: int) -> list[int]:
        work = [part.forward + part.backward + part.update for part in self.parts]
        # Without a toll for copies, which a table does not know; what handling costs is the clock's.
        found = balance(work, stages, range(1, len(work)), lambda cut: 0.0, lambda start, stop: True)
        assert found is not None
        return found

    def _find(self, name: str) -> int:
        names = [part.name for part in self.parts]
        if name not in names:
            raise ConfigError(f"the cost table has no part of that name (cut: {name!r}); there are: {', '.join(names)}")
        return names.index(name)

    def plain(self) -> dict[str, Any]:
        """Return the table as plain values, such as :meth:`parse` takes."""
        parts = [{k: v for k, v in asdict(part).items() if v is not None and v != {}} for part in self.parts]
        return {"batch_size": self.batch_size, "handling": self.handling, "parts": parts}

    def write(self, path: Path) -> None:
        """Write the table as YAML."""
        write_text(path, to_yaml(self.plain()))

    @classmethod
    def read(cls, path: Path) -> "CostTable":
        """Read a table that :meth:`write` or a user wrote.

        Raises:
            ConfigError: it cannot be read, or says something that has no meaning.
        """
        return parsed(path, cls.parse)

    @classmethod
    def parse(cls, content: Any) -> "CostTable":
        """Return the table of plain values.

        Raises:
            ConfigError: they say something that has no meaning.
        """
        if not isinstance(content, Mapping) or set(content) - {"batch_size", "handling", "parts"}:
            raise ConfigError("a cost table has the entries batch_size, handling and parts, and no others")
        size, handling, parts = content.get("batch_size"), content.get("handling", 0.0), content.get("parts")
        if not isinstance(size, int) or not whole(size):
            raise ConfigError(f"batch_size is a whole number (batch_size: {size!r})")
        if not finite(handling):
            raise ConfigError(f"handling is a number of milliseconds a MB (handling: {handling!r})")
        if not isinstance(parts, list) or not all(isinstance(part, Mapping) for part in parts):
            raise ConfigError("parts is a list of entries with at least forward and backward")
        return cls(size, tuple(_cost(i, part) for i, part in enumerate(parts)), handling)


def parsed(path: Path, parse: Callable[[Any], T]) -> T:
    """Return what a file of costs says.

    Args:
        path: of the file.
        parse: makes something of its plain values.

    Raises:
        ConfigError: it cannot be read, or says something that has no meaning.
    """
    try:
        content = read_yaml(path)
    except DataError as problem:
        raise DataError(f"the cost table cannot be read (costs: {path}): {problem}") from problem
    try:
        return parse(content)
    except ConfigError as problem:
        raise ConfigError(f"{problem} (costs: {path})") from problem


def _cost(position: int, entry: Mapping[str, Any]) -> Cost:
    known = {field.name for field in fields(Cost)}
    if unknown := set(map(str, entry)) - known:
        raise ConfigError(
            f"a part has unknown entries (part: {position}, entries: {', '.join(sorted(unknown))}); there are: "
            f"{', '.join(sorted(known))}"
        )
    if missing := {"forward", "backward"} - set(entry):
        raise ConfigError(
            f"a part does not say what it takes (part: {position}, missing: {', '.join(sorted(missing))})"
        )
    return Cost(**{**entry, "name": str(entry.get("name", position))})


def _merge(parts: Sequence[Cost]) -> Cost:
    return Cost(
        forward=sum(p.forward for p in parts),
        backward=sum(p.backward for p in parts),
        recompute=sum(p.second_forward for p in parts),
        update=sum(p.update for p in parts),
        fixed=sum(p.fixed for p in parts),
        mix=sum(p.mix for p in parts),
        input=parts[0].input,
        output=parts[-1].output,
        targets=parts[-1].targets,
        parameters=sum(p.parameters for p in parts),
        graph=sum(p.graph for p in parts),
        frozen=all(p.frozen for p in parts),
        tied={name: nbytes for p in parts for name, nbytes in p.tied.items()},
        name=parts[0].name,
    )


def ties_of(stages: Sequence[Cost]) -> tuple[Tie, ...]:
    """Return the parameters that several stages use, the first first."""
    names = dict.fromkeys(name for cost in stages for name in cost.tied)
    users = {name: tuple(k for k, cost in enumerate(stages) if name in cost.tied) for name in names}
    return tuple(Tie(used, (name,) * len(used)) for name, used in users.items() if len(used) > 1)


def frozen_stages(stages: Sequence[Cost]) -> int:
    """Return how many stages lie below the first that trains something."""
    return next((k for k, cost in enumerate(stages) if not cost.frozen), 0)
