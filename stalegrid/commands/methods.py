"""Lists the published methods."""

from argparse import Namespace

from rich.table import Table

from stalegrid.commands.options import Parser, add_own
from stalegrid.errors import ConfigError
from stalegrid.methods.choose import schedule as schedule_of
from stalegrid.methods.method import Method
from stalegrid.methods.published import METHODS, SERVER_METHODS
from stalegrid.observe.tables import plain, wide
from stalegrid.programs.grid import Grid
from stalegrid.programs.table import closed_form
from stalegrid.stages.views import find_view
from stalegrid.written.groups import text_of

ABOUT = "list the published methods, how stale they are and what they hold"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    add_own(parser, "--stages", int, "K, for which staleness and memory are shown", default=4)


def run(options: Namespace) -> int:
    """Print the methods."""
    Grid(1, options.stages)
    settings = plain("method", "staleness m_k, in batches", "M", "view", "corrections", "mixing", "source")
    heads = (f"at K = {options.stages}, per stage:", "staleness of update n", "graphs", "inputs", "weight copies")
    sizes = plain(*heads)
    for m in METHODS:
        corrections = ", ".join(text_of(m.corrections)) or "none"
        settings.add_row(
            m.name, m.formula, str(m.micro_batches), text_of(m.view), corrections, text_of(m.mixing), m.citation
        )
        sizes.add_row(m.name, *_sizes(m, 1 if m.max_stages == 1 else options.stages))
    console = wide()
    console.print(settings)
    console.print(sizes)
    console.print(_HELD)
    console.print(_served())
    return 0


def _served() -> Table:
    table = plain("learners and parameter servers", "gradients an update", "corrections", "staleness", "source")
    for m in SERVER_METHODS:
        splits = "n of --servers.softsync" if m.free else "the learners" if m.splits is None else str(m.splits)
        bound = "0" if m.synchronous else "about n; bound it with --servers.max-staleness"
        corrections = ", ".join(text_of(m.corrections)) or "none"
        table.add_row(m.name, f"learners / {splits}", corrections, bound, m.citation)
    return table


_HELD = """\
A graph is what one batch saves for its backward; an input is what a stage received of one batch; a weight copy is a
vector as large as the stage's parameters. Measuring the gap keeps one more copy where the view keeps no old version
(switch it off with --output.gap false)."""


def _sizes(method: Method, stages: int) -> tuple[str, ...]:
    """Return what every stage of a method is stale by and holds at most, each number of the stages in order."""
    view = find_view(method.view)
    schedule = schedule_of(method, stages, None, None, method.micro_batches, view.delay)
    try:
        view.check(schedule)
    except ConfigError:
        return (f"needs another M than {method.micro_batches}", "-", "-", "-")
    kept = [view.kept(schedule, k) for k in range(stages)]
    columns = (
        [closed_form(schedule, k) for k in range(stages)],
        [k.graphs for k in kept],
        [k.inputs for k in kept],
        [k.copies for k in kept],
    )
    return tuple("  ".join(map(str, column)) for column in columns)
