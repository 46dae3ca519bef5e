"""Repeats a recorded run with parameter servers, or whose groups met whenever they did."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import Parser
from stalegrid.observe import make_console

ABOUT = "repeat a run with parameter servers, or in pairs, in the order that it recorded, to the same bits"
USAGE = "DIR"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of a run")


def run(options: Namespace) -> int:
    """Replay."""
    from stalegrid.recipes import make_task
    from stalegrid.studies import recorded_config, replay

    config = recorded_config(options.run)
    made = replay(make_task(config), config, options.run)
    same = "the same bits" if made.equal else f"OTHER bits (largest difference: {made.difference:g})"
    make_console().print(f"version {made.version}: the replay has {same} as the run", soft_wrap=True)
    return 0 if made.equal else 1
