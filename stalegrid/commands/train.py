"""Trains a model."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import EVERYTHING, Parser, add_fields, add_own, config_of
from stalegrid.observe import tell

ABOUT = "train a model"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    add_fields(parser, EVERYTHING)
    about = "file of a model, and beside it of its optimizer's state, that the run begins with"
    add_own(parser, "--start-from", Path | None, about)


def run(options: Namespace) -> int:
    """Train."""
    from stalegrid.recipes import make_task
    from stalegrid.train import execute, get_ready

    config = config_of(options)
    get_ready(config)
    result = execute(make_task(config), config, start_from=options.start_from)
    where = "nothing is kept: name a folder with --out" if result.folder is None else f"results are in {result.folder}"
    tell(where)
    return 0
