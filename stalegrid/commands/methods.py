"""Lists the published methods, or says what one is and how to cite it."""

from argparse import Namespace

from rich.table import Table

from stalegrid.commands.options import Parser, add_own
from stalegrid.consensus import MixingSettings, find_mixing, turns_of
from stalegrid.errors import ConfigError
from stalegrid.methods import METHODS, SERVER_METHODS, Method, ServerMethod, bibtex, find
from stalegrid.methods import schedule as schedule_of
from stalegrid.observe import plain, wide
from stalegrid.plans import Exchanged, vectors_sent
from stalegrid.programs import Grid, closed_form
from stalegrid.stages import find_view, vectors_of
from stalegrid.written import text_of

ABOUT = "list the published methods, how stale they are and what they hold; of one also what to cite"
USAGE = "[NAME] [options]"


_SETTINGS = ("method", "staleness m_k, in batches", "M", "reduction", "view", "corrections", "mixing", "source")
_SIZES = ("staleness of update n", "graphs", "inputs", "weight copies")
_VECTORS = ("vectors kept", "sent an update")
_SERVED = ("learners and parameter servers", "gradients an update", "corrections", "staleness", "source")


def ask(parser: Parser) -> None:
    """Add the options."""
    about = "of one method, to say what it is and print its BibTeX entry"
    parser.add_argument("name", nargs="?", metavar="NAME", help=about)
    add_own(parser, "--stages", int, "K, for which staleness and memory are shown", default=4)
    add_own(parser, "--groups", int, "S, for which is shown what groups send each other", default=4)


def run(options: Namespace) -> int:
    """Print the methods, or one."""
    grid = Grid(options.groups, options.stages)
    console = wide()
    if options.name is None:
        for shown in _all(grid):
            console.print(shown)
    else:
        method = find(options.name)
        console.print(_one(method, grid))
        if method in (*METHODS, *SERVER_METHODS):  # what to cite for one's own one knows
            console.print(bibtex()[method.name], soft_wrap=True)
    return 0


def _all(grid: Grid) -> tuple[Table | str, ...]:
    settings, served = plain(*_SETTINGS), plain(*_SERVED)
    between = (f"{head}, S = {grid.groups}" for head in _VECTORS)
    sizes = plain(f"at K = {grid.stages}, per stage:", *_SIZES, *between)
    for method in METHODS:
        settings.add_row(*_settings(method))
        sizes.add_row(method.name, *_sizes(method, grid.stages), *_vectors(method, grid.groups))
    for learners in SERVER_METHODS:
        served.add_row(*_served(learners))
    return settings, sizes, _HELD, served


def _one(method: Method | ServerMethod, grid: Grid) -> Table:
    if isinstance(method, ServerMethod):
        rows = list(zip(_SERVED, _served(method), strict=True))
    else:
        heads = [f"{head}, per stage at K = {_stages(method, grid.stages)}" for head in _SIZES]
        between = zip((f"{head}, S = {grid.groups}" for head in _VECTORS), _vectors(method, grid.groups), strict=True)
        optimizer = ("optimizer", method.optimizer or "any")
        settings = zip(_SETTINGS, _settings(method), strict=True)
        rows = [*settings, optimizer, *zip(heads, _sizes(method, grid.stages), strict=True), *between]
    shown = plain(*rows[0])
    for row in rows[1:]:
        shown.add_row(*row)
    return shown


def _vectors(method: Method, groups: int) -> tuple[str, str]:
    """Return how many vectors a unit keeps for the mixing, and how many each group sends for an update."""
    mixing, most = find_mixing(method.mixing), groups if method.max_groups is None else method.max_groups
    turns = turns_of(MixingSettings(), min(groups, most), 1, usual=method.turns, mixing=mixing)
    exchanged = Exchanged(mixing, turns)
    return f"{exchanged.vectors_kept:.4g}", f"{vectors_sent(exchanged):.4g}"


def _settings(method: Method) -> tuple[str, ...]:
    corrections = ", ".join(text_of(method.corrections)) or "none"
    micro = str(method.micro_batches)
    return (
        method.name,
        method.formula,
        micro,
        method.reduction,
        text_of(method.view),
        corrections,
        ", ".join(filter(None, (text_of(method.mixing), method.turns.text))),
        method.citation,
    )


def _served(method: ServerMethod) -> tuple[str, ...]:
    splits = (
        "n of --servers.softsync" if method.free else "the learners" if method.splits is None else str(method.splits)
    )
    bound = "0" if method.synchronous else "about n; bound it with --servers.max-staleness"
    corrections = ", ".join(text_of(method.corrections)) or "none"
    return method.name, f"learners / {splits}", corrections, bound, method.citation


def _stages(method: Method, stages: int) -> int:
    return 1 if method.max_stages == 1 else stages


_HELD = """\
A graph is what one batch saves for its backward; an input is what a stage received of one batch; a weight copy is a
vector as large as the stage's parameters, which views and corrections keep. Measuring the gap keeps one more copy where
the view keeps no old version (switch it off with --output.gap false). Between groups such vectors are kept by each unit
from one exchange to the next, and sent by each group to all others, on average. With V sent, P bytes of parameters, S
groups, and A bytes of activations that cross the K - 1 cuts with a batch, an update sends S (V P + 2 A) bytes, since
gradients come back; a sample sends the S B-th part, with B in a batch. stalegrid plan and a run's summary say it in
bytes."""


def _sizes(method: Method, stages: int) -> tuple[str, ...]:
    """Return what every stage of a method is stale by and holds at most, each number of the stages in order."""
    view, stages = find_view(method.view), _stages(method, stages)
    schedule = schedule_of(method, stages, None, None, method.micro_batches, view.delay)
    try:
        view.check(schedule)
    except ConfigError:
        return (f"needs another M than {method.micro_batches}", "-", "-", "-")
    kept, vectors = [view.kept(schedule, k) for k in range(stages)], vectors_of(method.corrections)
    columns = (
        [closed_form(schedule, k) for k in range(stages)],
        [k.graphs for k in kept],
        [k.inputs for k in kept],
        [k.copies + vectors for k in kept],
    )
    return tuple("  ".join(map(str, column)) for column in columns)
