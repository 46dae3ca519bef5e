"""Trains a model."""

from jsonargparse import ArgumentParser, Namespace
from rich.console import Console

from stalegrid.commands.options import EVERYTHING, add_fields, config_of

ABOUT = "train a model"
USAGE = "[options]"


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    add_fields(parser, EVERYTHING)


def run(options: Namespace) -> int:
    """Train."""
    from stalegrid.recipe import make_task
    from stalegrid.train import execute

    config = config_of(options)
    result = execute(make_task(config), config)
    where = "nothing is kept: name a folder with --out" if result.folder is None else f"results are in {result.folder}"
    Console().print(where, highlight=False, soft_wrap=True)
    return 0
