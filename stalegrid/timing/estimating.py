"""A program run without tensors: what it would take, and where the time would go.

Does not know: models, processes, who asks.
"""

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

from stalegrid.errors import EngineError
from stalegrid.observe import Recorder
from stalegrid.programs import Action, Edge, Program, Schedule, Unit
from stalegrid.timing.clock import Clock, TimeModel
from stalegrid.timing.costs import NANOSECONDS


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would take.

    Attributes:
        batch: milliseconds from one update to the next, of the slowest unit, while the pipeline is full.
        total: milliseconds of the whole run.
        busy: share of the run that units compute, averaged over them.
        sending: share of the run that they handle messages, or could only wait for one that is under way.
        actions: how many were dated.
        updated: milliseconds after which all units have made each update.
    """

    batch: float
    total: float
    busy: float
    sending: float
    actions: int
    updated: tuple[float, ...]

    @property
    def waiting(self) -> float:
        """Share of the run that units do nothing and nothing is under way to them."""
        return max(0.0, 1.0 - self.busy - self.sending)  # the other two may round to more than 1


def estimate(program: Program, model: TimeModel, recorder: Recorder | None = None) -> Estimate:
    """Run a program in virtual time only.

    Args:
        program: without an observer.
        model: what actions take.
        recorder: who is told of every action and message; None for nobody.

    Raises:
        EngineError: the program deadlocks.
    """
    clock = Clock(program, model, recorder)
    actions = _run(program, clock)
    lanes = [clock.lanes[unit] for unit in program.grid]
    total = max(lane.free for lane in lanes)
    ends = [lane.updates for lane in lanes]
    return Estimate(
        batch=max(map(steady, ends)) / NANOSECONDS,
        total=total / NANOSECONDS,
        busy=sum(lane.busy for lane in lanes) / (total * len(lanes)) if total else 0.0,
        sending=sum(lane.sending for lane in lanes) / (total * len(lanes)) if total else 0.0,
        actions=actions,
        updated=tuple(max(together) / NANOSECONDS for together in zip(*ends, strict=True)),
    )


def steady(ends: list[int]) -> float:
    """Return the mean time between updates in the middle half of a run: first the pipeline fills, last it drains.

    Args:
        ends: of a unit's updates, in nanoseconds.
    """
    edge = len(ends) // 4
    first, last = edge, len(ends) - 1 - edge
    return (ends[last] - ends[first]) / (last - first) if last > first else ends[-1] / len(ends)


def long_enough(schedule: Schedule, updates: int) -> int:
    """Return a number of updates, at least so many, of which less than a quarter fill the pipeline or drain it."""
    return max(updates, 4 * -(-schedule.windows[0] // schedule.micro_batches) + 4)


def _run(program: Program, clock: Clock) -> int:
    """Let every unit run as far as its messages go, then those that it has sent what they wait for."""
    # In any order that the program allows: dates do not depend on it.
    programs = {unit: program.actions(unit) for unit in program.agents}
    stopped: dict[Edge, tuple[Unit, Action]] = {}
    able: deque[tuple[Unit, Action | None]] = deque((unit, next(programs[unit], None)) for unit in programs)
    count = 0
    while able:
        unit, action = able.popleft()
        count += _advance(unit, action, programs[unit], clock, stopped, able)
    if stopped:
        waits = "; ".join(f"unit {unit} waits for {edge} before {action}" for edge, (unit, action) in stopped.items())
        raise EngineError(f"deadlock: {waits}")
    return count


def _advance(
    unit: Unit,
    action: Action | None,
    rest: Iterator[Action],
    clock: Clock,
    stopped: dict[Edge, tuple[Unit, Action]],
    able: deque[tuple[Unit, Action | None]],
) -> int:
    count, lines = 0, clock.lines
    while action is not None:
        for tag in action.needs:
            if not lines[tag.edge].arrivals:
                # The first edge without its message is enough: once that is there, the unit looks again and may stop at
                # the next.
                stopped[tag.edge] = unit, action
                return count
        clock.date(unit, action)
        count += 1
        for tag in action.sends:
            if tag.edge in stopped:
                able.append(stopped.pop(tag.edge))
        action = next(rest, None)
    return count
