"""Trains a model."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import EVERYTHING, Parser, add_fields, add_own, config_of
from stalegrid.observe import tell
from stalegrid.recipes import RunConfig

ABOUT = "train a model"
USAGE = "[options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    add_fields(parser, EVERYTHING)
    about = "file of a model, and beside it of its optimizer's state, that the run begins with"
    add_own(parser, "--start-from", Path | None, about)
    add_own(parser, "--resume", str | None, RESUME)


RESUME = (
    "folder of a run, or of one of its checkpoints, from which this one goes on; or auto: from the newest checkpoint "
    "in the folder of --out, or from the beginning where there is none"
)


def run(options: Namespace) -> int:
    """Train."""
    return train(config_of(options), options.resume, options.start_from)


def train(config: RunConfig, resume: Path | str | None, start_from: Path | None = None) -> int:
    """Train what a configuration says; see :func:`stalegrid.train.train`."""
    from stalegrid.recipes import make_task
    from stalegrid.runs import execute, get_ready

    get_ready(config)
    result = execute(make_task(config), config, resume=resume, start_from=start_from)
    where = "nothing is kept: name a folder with --out" if result.folder is None else f"results are in {result.folder}"
    tell(where)
    return 0
