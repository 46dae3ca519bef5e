"""Goes on with a run that the command line has started.

Does not know: how runs are saved.
"""

import argparse
from pathlib import Path
from typing import Any

from stalegrid.checkpoints import FREE, run_of
from stalegrid.commands.options import EVERYTHING, Parser, add_fields, config_of, content_of
from stalegrid.commands.train import train
from stalegrid.errors import ConfigError
from stalegrid.observe import CONFIG
from stalegrid.report import read_config

ABOUT = "go on with a run that left or was ended, from a checkpoint, to the bit"
USAGE = "DIR [options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument(
        "run", action=_Run, metavar="DIR", help="folder of a run, or of one of its checkpoints, to go back to that"
    )
    add_fields(parser, [path for path in EVERYTHING if path in FREE or path.partition(".")[0] in FREE])


def run(options: argparse.Namespace) -> int:
    """Go on."""
    return train(config_of(options), options.run)


class _Run(argparse.Action):
    """Reads what a run was asked for, over which this command's options come."""

    def __call__(self, parser: Any, options: argparse.Namespace, text: Any, option: str | None = None) -> None:
        folder = run_of(Path(text))
        if "model" not in read_config(folder):
            raise ConfigError(
                f"the run was started by a script, which alone knows its model and data (folder: {folder}); run that "
                f"script again, with train(..., resume={text!r})"
            )
        options.config = [content_of(folder / CONFIG), *options.config]
        options.run = text
