"""Prints the program of each stage."""

from argparse import Namespace
from dataclasses import replace

from rich.table import Table

from stalegrid.commands.options import Parser, add_fields, add_own, config_of
from stalegrid.errors import ConfigError
from stalegrid.limits import factor
from stalegrid.methods import Method, find_grid, schedule
from stalegrid.observe import Stream, make_console, plain
from stalegrid.plans import grid_of
from stalegrid.programs import Grid, Program, Schedule, Tie, Ties, closed_form, ticks, tied_form
from stalegrid.recipes import RunConfig
from stalegrid.stability import Momentum
from stalegrid.stages import View, find_view

MOST = 1000
"""Updates of a table."""

_ASKED = (
    "method.name",
    "method.staleness",
    "method.queues",
    "method.view",
    "method.micro_batches",
    "grid.stages",
    "training.updates",
    "training.targets",
    "optimizer.momentum",
    "optimizer.nesterov",
)

ABOUT = "print the program of each stage as a tick table"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is shown")
    add_own(own, "--tied", list[int] | None, "stages that would use one and the same parameter, such as 0,3")
    add_fields(parser, _ASKED)


def run(options: Namespace) -> int:
    """Print the table."""
    config = config_of(options)
    asked, updates = config.method, config.training.updates
    method = find_grid(asked.name)
    stages = grid_of(method, replace(config.grid, groups=1)).stages
    micro = method.micro_batches if asked.micro_batches is None else asked.micro_batches
    view = find_view(method.view if asked.view is None else asked.view)
    if asked.staleness == "auto":
        raise ConfigError("a table has no costs to choose a staleness by (staleness: auto); see stalegrid plan")
    chosen = schedule(method, stages, asked.staleness, asked.queues, micro, view.delay)
    view.check(chosen)
    updates = max(2, 8 // micro) if updates is None else updates
    if updates > MOST:
        raise ConfigError(f"a table shows at most {MOST} updates (updates: {updates})")
    ties, travel = _ties(options.tied, stages), config.training.targets == "travel"
    program = Program(Grid(1, stages), chosen, updates, targets_travel=travel, ties=ties)
    rows = ticks(program)
    table = plain("stage \\ tick", *map(str, range(len(rows[0]))))
    for k, row in enumerate(rows):
        table.add_row(str(k), *row)
    shown = make_console(width=None if Stream("stdout").isatty() else 10_000)  # a tick table is wide
    shown.print(table)
    shown.print(_forms(chosen, view, _steps(method, config)))
    if travel:
        shown.print(_targets(chosen))
    shown.print(_busy(chosen))
    for tie in ties.each:
        shown.print(tied_form(chosen, tie))
    return 0


def _ties(asked: list[int] | None, stages: int) -> Ties:
    if asked is None:
        return Ties()
    if len(asked) < 2 or sorted(set(asked)) != asked or not 0 <= asked[0] <= asked[-1] < stages:
        raise ConfigError(
            f"a tied parameter is one of several stages, in their order (tied: {','.join(map(str, asked))}, stages: 0 "
            f"to {stages - 1})"
        )
    return Ties((Tie(tuple(asked), ("tied parameter",) * len(asked)),))


def _steps(method: Method, config: RunConfig) -> Momentum:
    asked = config.optimizer
    momentum = method.momentum if asked.momentum is None else asked.momentum
    if not 0 <= momentum < 1:
        raise ConfigError(f"momentum is at least 0 and below 1 (optimizer.momentum: {momentum})")
    return Momentum(momentum=momentum, nesterov=asked.nesterov)


def _forms(schedule: Schedule, view: type[View], steps: Momentum) -> Table:
    waiting = ("waiting at the start", "later")
    rates = ("rate of sgd", f"with momentum {steps.momentum:g}")
    heads = ("stage", "staleness of update n", "at most", "graphs", "inputs", "weight copies", *waiting, *rates)
    table = plain(*heads)
    for k in range(schedule.stages):
        kept = view.kept(schedule, k)
        numbers = (schedule.bound(k), kept.graphs, kept.inputs, kept.copies)
        queue = (schedule.in_flight(k - 1) if k else 0, schedule.queued(k))
        factors = (factor(schedule, view, k, own) for own in (Momentum(), steps))
        shares = ("" if share is None else f"{share:.3g}" for share in factors)
        table.add_row(str(k), closed_form(schedule, k), *map(str, (*numbers, *queue)), *shares)
    return table


def _targets(schedule: Schedule) -> str:
    if schedule.stages == 1:
        return "the only stage has the targets; none travel"
    waiting = f"waiting at the start: {schedule.in_flight(0)} batches at most, later: {schedule.targets_queued}"
    return f"targets travel from stage 0 to stage {schedule.stages - 1}, {waiting}"


def _busy(schedule: Schedule) -> str:
    if schedule.flush:
        return "all stages cannot be busy at once: every update waits for the pipeline to drain"
    if schedule.all_busy:
        return "all stages can be busy at once: staleness decreases by 1 or more at every stage"
    return "all stages cannot be busy at once: for that, staleness must decrease by 1 or more at every stage"
