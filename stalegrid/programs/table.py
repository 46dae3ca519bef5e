"""A program as the tick table that papers draw.

Does not know: tensors, real time; a tick is one forward and one backward of every stage that can.
"""

from collections.abc import Iterator

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule
from stalegrid.programs.ties import Tie

Row = list[str]


def ticks(program: Program, group: int = 0) -> list[Row]:
    """Return what each stage of one group does in each tick.

    A tick is one forward and one backward of a stage without flushes, either of them with; a message sent in a tick is
    there in the next.  An update belongs to its backward.

    Args:
        program: whose actions.
        group: which group.

    Returns:
        One row a stage, one cell a tick, such as ``F4 B2``.
    """
    rows: list[Row] = [[] for _ in range(program.grid.stages)]
    queues = [_Peekable(_pipeline_only(program, Unit(group, k))) for k in range(program.grid.stages)]
    sent: dict[Tag, int] = {}
    tick = 0
    while any(queue.head for queue in queues):
        for row, queue in zip(rows, queues, strict=True):
            row.append(" ".join(map(str, _turn(queue, sent, tick, program.schedule.flush))))
        if not any(row[-1] for row in rows):
            raise ConfigError(f"the program deadlocks (windows: {program.schedule.windows})")
        tick += 1
    return rows


def _turn(queue: "_Peekable", sent: dict[Tag, int], tick: int, one_only: bool) -> list[Action]:
    done: list[Action] = []
    while (action := queue.head) is not None:
        kinds = {a.kind for a in done}
        if action.kind in kinds or (one_only and kinds):
            break
        # What has not been sent yet counts as sent now, which is too late too.
        if not all(sent.get(tag, tick) < tick for tag in action.needs):
            break
        sent.update(dict.fromkeys(action.sends, tick))
        done.append(queue.take())
    return done


def _pipeline_only(program: Program, unit: Unit) -> Iterator[Action]:
    return (a for a in program.actions(unit) if a.kind in (Kind.FORWARD, Kind.BACKWARD))


class _Peekable:
    """Actions with a look at the next one."""

    def __init__(self, actions: Iterator[Action]) -> None:
        self._actions = actions
        self.head = next(actions, None)

    def take(self) -> Action:
        taken = self.head
        assert taken is not None
        self.head = next(self._actions, None)
        return taken


def closed_form(schedule: Schedule, stage: int) -> str:
    """Return the staleness of update n at one stage, in updates, as a formula."""
    if schedule.bound(stage) == 0:
        return "0"
    return f"min(n, {schedule.bound(stage)})"


def tied_form(schedule: Schedule, tie: Tie) -> str:
    """Return who trains a parameter that several stages use, and how stale its updates are, as a line."""
    others = ", ".join(map(str, tie.mirrors))
    return (
        f"{tie.names[0]}: trained by stage {tie.owner}, with mirrors in {others}; every use of it in batch b has the "
        f"weights of F b at stage {tie.owner}, so its staleness is {closed_form(schedule, tie.owner)}"
    )
