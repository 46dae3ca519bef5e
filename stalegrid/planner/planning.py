"""Which grid, method and staleness suit given devices: every candidate in virtual time, and one recommended.

Does not know: models, tensors, processes; costs say all about the model.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from stalegrid.config import Settings
from stalegrid.consensus import (
    NONE,
    check_turns,
    choose_mixing,
    find_mixing,
    kind_of,
    turns_of,
)
from stalegrid.errors import ConfigError
from stalegrid.methods import Method, Named, find_grid
from stalegrid.methods import schedule as schedule_of
from stalegrid.plans import Devices, Exchanged, Gain, check_share, mean_of_cycle
from stalegrid.programs import Grid, Lateral, Program, Schedule
from stalegrid.stages import View, find_view, vectors_of
from stalegrid.timing import (
    Cost,
    CostTable,
    DeviceTable,
    Disturbances,
    Estimate,
    estimate,
    has_units,
)
from stalegrid.written import text_of

USUAL = ("sgd", "data-parallel", "gpipe", "1f1b", "pipedream", "dsp", "pham-ahn")
"""Methods that are compared unless the user names others."""

WORTH = 1.1
"""How much faster than the best synchronous method a stale one must be to be recommended."""

STATES = {"sgd": 1, "adam": 2, "adamw": 2, "nadam": 2}
"""Vectors that an optimizer keeps for each of parameters."""

UNKNOWN_STATES = 2
"""Of an optimizer of the user's own, as many as most keep."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """One way to use the devices.

    Attributes:
        settings: that train so.
        grid: likewise.
        schedule: how far stages run ahead.
        cuts: names of the parts that begin stages 1..K-1.
        estimate: what it takes.
        memory: bytes of each stage: parameters, gradients, optimizer state, batches in flight, vectors of the mixing.
        samples_per_second: of all groups together.
        sent: bytes that units send each other for an update, by kind of edge, on average.
        gain: of cutting for devices that are not alike; None where they are, or the cuts are the user's.
    """

    settings: Settings
    grid: Grid
    schedule: Schedule
    cuts: tuple[str, ...]
    estimate: Estimate
    memory: tuple[int, ...]
    samples_per_second: float
    sent: Mapping[str, float]
    gain: Gain | None = None

    @property
    def staleness(self) -> tuple[int, ...]:
        """Staleness of each stage in updates, at most."""
        return tuple(self.schedule.bound(k) for k in range(self.schedule.stages))

    @property
    def bytes_per_update(self) -> float:
        """Bytes that units send each other for an update."""
        return sum(self.sent.values())

    @property
    def bytes_per_sample(self) -> float:
        """Likewise, for a sample of it."""
        return self.bytes_per_update / (self.grid.groups * self.settings.training.largest)

    @property
    def synchronous(self) -> bool:
        """Whether it computes what one device would: no gradient is late, and groups are never apart."""
        kind = self.settings.mixing.kind
        together = self.grid.groups == 1 or (kind is not None and find_mixing(kind).averages_gradients)
        return together and not find_grid(self.settings.method.name).stale


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked.

    Args:
        table: what the model costs.
        devices: how many there are.
        names: of the methods to compare.
        memory: bytes that a device has for training; None for enough.
        states: vectors that the optimizer keeps for each of parameters.

    Raises:
        ConfigError: a number has no meaning.
    """

    table: CostTable | DeviceTable
    devices: int
    names: tuple[Named, ...] = USUAL
    memory: int | None = None
    states: int = 1

    def __post_init__(self) -> None:
        if self.devices < 1:
            raise ConfigError(f"a plan is for at least one device (devices: {self.devices})")
        if isinstance(self.table, DeviceTable) and len(self.table.columns) != self.devices:
            raise ConfigError(
                f"a plan is for all devices of a table (units: {self.devices}, devices: {len(self.table.columns)}); "
                "profile as many, or leave out columns"
            )
        if self.memory is not None and self.memory < 1:
            raise ConfigError(f"a device needs memory (memory: {self.memory} bytes)")
        for name in self.names:
            find_grid(name)


def candidates(question: Question, settings: Settings) -> list[Candidate]:
    """Estimate every combination of grid, method, micro-batches and staleness that uses the devices.

    Args:
        question: what is asked.
        settings: links, jitter, slow units, mixing, batch size and whatever else is the same for all; a grid or a
            staleness given there is kept.

    Returns:
        All that run, fastest first.

    Raises:
        ConfigError: none runs, or what is given makes no sense.
    """
    check_share(settings.method.within)
    settings.training.check_alike("a plan compares grids of several numbers of groups")
    found = sorted(_all(question, settings), key=lambda c: -c.samples_per_second)
    if not found:
        raise ConfigError(
            f"nothing to plan: no method runs on a grid of these devices (devices: {question.devices}, parts of the "
            f"model: {len(question.table.parts)}, methods: {', '.join(map(str, text_of(question.names)))})"
        )
    return found


def fitting(found: Sequence[Candidate], memory: int | None) -> list[Candidate]:
    """Return those whose stages have room.

    Raises:
        ConfigError: none has.
    """
    fit = [c for c in found if memory is None or max(c.memory) <= memory]
    if not fit:
        least = min(max(c.memory) for c in found)
        raise ConfigError(
            f"nothing fits into the memory (memory: {memory} bytes, the least that any needs: {least}); use more "
            "stages, smaller batches, or view recomputed"
        )
    return fit


def recommend(fit: Sequence[Candidate], within: float) -> tuple[Candidate, str]:
    """Return one candidate and the reason.

    Args:
        fit: those that fit, fastest first.
        within: share of the best throughput that may be missed for less staleness.
    """
    exact = [c for c in fit if c.synchronous]
    others = [c for c in fit if not c.synchronous]
    near = [c for c in fit if c.samples_per_second >= (1 - within) * fit[0].samples_per_second]
    best = min(near, key=lambda c: (not c.synchronous, sum(c.staleness), max(c.memory)))
    if not exact:
        return best, "nothing synchronous was compared or fits; it has the least staleness of what is about as fast"
    if not others:
        return exact[0], "the fastest; nothing stale was compared or fits"
    gain = others[0].samples_per_second / exact[0].samples_per_second
    if best.synchronous or gain < WORTH:
        faster = f"only {gain - 1:.0%} faster" if gain > 1 else "not faster"
        return exact[0], (
            f"synchronous training is better here: what is stale or lets groups drift apart is {faster} (worth it from "
            f"{WORTH - 1:.0%})"
        )
    gain = best.samples_per_second / exact[0].samples_per_second
    return best, (
        f"{gain:.2f} times as fast as the best synchronous method ({_name(exact[0])}), and the least stale of what is "
        f"within {within:.0%} of the fastest"
    )


def shortened(found: Sequence[Candidate], best: Candidate) -> list[Candidate]:
    """Return the fastest of each method, and the recommended one, in their order."""
    fastest: dict[str, Candidate] = {}
    for candidate in found:
        fastest.setdefault(_method(candidate), candidate)
    return [c for c in found if c is best or c is fastest[_method(c)]]


def _name(candidate: Candidate) -> str:
    return f"{_method(candidate)} on {candidate.grid.groups} x {candidate.grid.stages}"


def _method(candidate: Candidate) -> str:
    return find_grid(candidate.settings.method.name).name


def _all(question: Question, settings: Settings) -> Iterator[Candidate]:
    for grid in _grids(question, settings):
        disturbances = Disturbances.parse(settings.devices, grid, settings.training.seed)
        table = question.table.of_batch(settings.training.largest)
        devices = Devices.cut(disturbances, table, grid, settings.grid.cuts)
        for name in question.names:
            method = find_grid(name)
            if _runs(method, grid, settings):
                made = list(_of_method(question, settings, name, grid, devices))
                # Of a method that flushes only the best number of micro-batches is of interest.
                made.sort(key=lambda c: -c.samples_per_second)
                yield from made if method.stale else made[:1]


def _grids(question: Question, settings: Settings) -> list[Grid]:
    """Return the grids that the devices can form, and of these those that have the units which are named, if any do."""
    found: list[Grid] = []
    for stages in _divisors(question.devices):
        groups = question.devices // stages
        asked = settings.grid.stages in (None, stages) and settings.grid.groups in (None, groups)
        if asked and stages <= len(question.table.parts) and _as_long(settings, stages):
            found.append(Grid(groups, stages))
    return [grid for grid in found if has_units(settings.devices, grid)] or found


def _as_long(settings: Settings, stages: int) -> bool:
    """Return whether what is given for each stage is given for so many."""
    cuts = settings.grid.cuts
    given = (settings.method.staleness, settings.method.queues, None if cuts is None else [*cuts, ""])
    return all(len(numbers) == stages for numbers in given if isinstance(numbers, list))


def _divisors(number: int) -> list[int]:
    return [d for d in range(1, number + 1) if number % d == 0]


def _runs(method: Method, grid: Grid, settings: Settings) -> bool:
    if method.max_groups is not None and grid.groups > method.max_groups:
        return False
    if method.max_stages is not None and grid.stages > method.max_stages:
        return False
    if len(grid) > 1 and method.name == "sgd":
        return False  # one stage after the other: never faster than one device
    pipeline = method.stale or method.micro_batches > 1
    if grid.stages == 1 and pipeline and not (method.stale and grid.groups > 1):
        return False
    return grid.groups == 1 or find_mixing(method.mixing) is not NONE or settings.mixing.kind is not None


def _of_method(
    question: Question, settings: Settings, name: Named, grid: Grid, devices: Devices
) -> Iterator[Candidate]:
    method = find_grid(name)
    asked = settings.method
    view = find_view(asked.view or method.view)
    mixing = choose_mixing(settings.mixing, method.mixing, method.name, grid.groups)

    usual, seed = method.turns, settings.training.seed
    turns = turns_of(settings.mixing, grid.groups, 1, (), usual, mixing, grid.stages, seed)
    check_turns(mixing, turns, momentum=settings.mixing.momentum)

    def lateral(updates: int) -> Lateral:
        return mixing.lateral(replace(turns, updates=updates))

    exchanged = Exchanged(mixing, turns, settings.mixing.momentum)
    devices = devices.exchanging(exchanged)
    assert devices.costs is not None
    travel = settings.training.targets == "travel"
    seen: set[Schedule] = set()
    for micro in _micro_batches(method, grid, settings):
        for staleness in _vectors(method, grid, settings):
            ahead: list[int] | None
            if staleness == "auto":
                ahead = devices.enough_staleness(
                    method, grid, view, micro, lateral, asked.within, targets_travel=travel
                )
            else:
                ahead = staleness
            schedule = schedule_of(method, grid.stages, ahead, asked.queues, micro, view.delay)
            if schedule in seen or not _allowed(view, schedule):
                continue
            seen.add(schedule)
            cut = devices.faster(grid, schedule, view, lateral, targets_travel=travel)
            assert cut.costs is not None
            program = cut.program(grid, schedule, view, lateral, targets_travel=travel)
            made = estimate(program, cut.time_model(program))
            chosen = replace(
                settings,
                method=replace(
                    asked,
                    name=name,
                    staleness=[w - 1 for w in schedule.windows] if method.stale else None,
                    queues=None,
                    micro_batches=micro,
                ),
                grid=replace(settings.grid, groups=grid.groups, stages=grid.stages, cuts=cut.cuts),
                mixing=replace(settings.mixing, kind=kind_of(mixing, settings.mixing, method.mixing)),
            )
            vectors = question.states + vectors_of(method.corrections)
            memory = [
                _memory(program, view, k, cost, vectors) + exchanged.remembered(cost.parameters)
                for k, cost in enumerate(cut.costs)
            ]
            sent = mean_of_cycle(program, turns, mixing, cut.time_model(program).nbytes)
            rate = 1000 * grid.groups * settings.training.largest / made.batch if made.batch else float("inf")
            yield Candidate(chosen, grid, schedule, tuple(cut.cuts), made, tuple(memory), rate, sent, cut.gain)


def _micro_batches(method: Method, grid: Grid, settings: Settings) -> Sequence[int]:
    if settings.method.micro_batches is not None:
        return (settings.method.micro_batches,)
    if method.stale or method.micro_batches == 1:
        return (method.micro_batches,)
    size = settings.training.largest
    whole = [m for m in range(1, size + 1) if size % m == 0]
    return [m for m in whole if grid.stages <= m <= 4 * grid.stages] or whole[-1:]


def _allowed(view: type[View], schedule: Schedule) -> bool:
    try:
        view.check(schedule)
    except ConfigError:
        return False
    return True


def _vectors(method: Method, grid: Grid, settings: Settings) -> Sequence[list[int] | Literal["auto"] | None]:
    if not method.stale or settings.method.queues is not None:
        return (None,)
    if settings.method.staleness is not None:
        return (settings.method.staleness,)
    return (None, "auto") if grid.stages > 1 else (None,)


def _memory(program: Program, view: type[View], stage: int, cost: Cost, vectors: int) -> int:
    schedule, ties = program.schedule, program.ties
    kept = view.kept(schedule, stage)
    own = cost.parameters * (2 + vectors)
    inputs = 0 if cost.frozen else kept.inputs * cost.input
    flying = (kept.graphs * cost.graph + inputs) // schedule.micro_batches
    # A mirror, its gradient, and older versions of it that batches in flight have been forwarded at.
    versions = schedule.in_flight(stage) - 1 if ties.always else schedule.bound(stage)
    mirrored = sum(cost.tied[name] for name in ties.mirrored(stage).values())
    return own + flying + kept.copies * cost.parameters + (2 + versions) * mirrored
