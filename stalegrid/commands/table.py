"""Prints the program of each stage."""

from jsonargparse import ArgumentParser, Namespace
from rich.table import Table

from stalegrid.commands.options import add_fields
from stalegrid.errors import ConfigError
from stalegrid.methods import methods
from stalegrid.observe.stream import Stream, console
from stalegrid.planner.show import plain
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule
from stalegrid.programs.table import closed_form, ticks
from stalegrid.stages.views import View, find_view

MOST = 1000
"""Updates of a table."""

ABOUT = "print the program of each stage as a tick table"
USAGE = "[options]"


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    add_fields(parser, ("method", "stages", "staleness", "queues", "view", "micro_batches", "updates"))


def run(options: Namespace) -> int:
    """Print the table."""
    method = methods.find(options.method)
    stages = Grid(1, method.shape[1] if options.stages is None else options.stages).stages
    if method.max_stages is not None and stages > method.max_stages:
        raise ConfigError(f"{method.name} does not cut the model (stages: {stages})")
    micro = method.micro_batches if options.micro_batches is None else options.micro_batches
    view = find_view(options.view or method.view)
    schedule = methods.schedule(method, stages, options.staleness, options.queues, micro, view.delay)
    view.check(schedule)
    updates = max(2, 8 // micro) if options.updates is None else options.updates
    if updates > MOST:
        raise ConfigError(f"a table shows at most {MOST} updates (updates: {updates})")
    program = Program(Grid(1, stages), schedule, updates)
    rows = ticks(program)
    table = plain("stage \\ tick", *map(str, range(len(rows[0]))))
    for k, row in enumerate(rows):
        table.add_row(str(k), *row)
    shown = console(width=None if Stream("stdout").isatty() else 10_000)  # a tick table is wide
    shown.print(table)
    shown.print(_forms(schedule, view))
    shown.print(_busy(schedule))
    return 0


def _forms(schedule: Schedule, view: type[View]) -> Table:
    waiting = ("waiting at the start", "later")
    heads = ("stage", "staleness of update n", "at most", "graphs", "inputs", "weight copies", *waiting)
    table = plain(*heads)
    for k in range(schedule.stages):
        kept = view.kept(schedule, k)
        numbers = (schedule.bound(k), kept.graphs, kept.inputs, kept.copies)
        queue = (schedule.in_flight(k - 1) if k else 0, schedule.queued(k))
        table.add_row(str(k), closed_form(schedule, k), *map(str, (*numbers, *queue)))
    return table


def _busy(schedule: Schedule) -> str:
    if schedule.flush:
        return "all stages cannot be busy at once: every update waits for the pipeline to drain"
    if schedule.all_busy:
        return "all stages can be busy at once: staleness decreases by 1 or more at every stage"
    return "all stages cannot be busy at once: for that, staleness must decrease by 1 or more at every stage"
