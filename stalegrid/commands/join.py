"""Asks a run for groups back that it has lost."""

from argparse import Namespace
from pathlib import Path

from stalegrid.checkpoints import FOLDER, ask_back, check_not_ended, goes_on, newest, run_of
from stalegrid.commands.options import Parser, add_own
from stalegrid.errors import ConfigError
from stalegrid.observe import tell

ABOUT = "let groups come back to a run that has lost them and goes on without, each with a neighbour's state"
USAGE = "DIR [--groups N,N]"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of the run")
    add_own(parser, "--groups", list[int] | None, "which; all that are lost if left out")


def run(options: Namespace) -> int:
    """Ask."""
    folder = run_of(options.run)
    if newest(folder) is None:
        raise ConfigError(f"the run has no checkpoint, and so lost no group that could come back (folder: {folder})")
    check_not_ended(folder)
    ask_back(folder / FOLDER, options.groups)
    when = "at the next version that all units have in common" if goes_on(folder / FOLDER) else "when the run goes on"
    tell(f"what is lost comes back {when}; the run says so, or why not")
    return 0
