"""Measures what the parts of a model cost."""

from argparse import Namespace
from pathlib import Path
from typing import Any

from stalegrid.commands.options import MODEL, Parser, add_fields, add_own, config_of, fields_of
from stalegrid.errors import ConfigError
from stalegrid.observe import wide
from stalegrid.planner import show
from stalegrid.written import exists, is_folder

ABOUT = "measure what the parts of a model cost on this machine"
USAGE = "[options]"

MACHINE = (
    "training.batch_size",
    "training.dtype",
    "training.precision",
    "training.seed",
    "engine.device",
    "engine.threads",
    "grid.cuts",
    "grid.tied",
)
"""What a batch takes depends on."""


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is measured")
    add_own(own, "--out", Path | None, "file for the costs")
    add_parts(own)
    add_own(own, "--copies", int, "processes that measure at once", default=1)
    add_fields(parser, [*fields_of(*MODEL), *MACHINE])


def add_parts(own: Any) -> None:
    """Add how finely a model is measured, to a group of options."""
    add_own(own, "--parts", int, "parts in which the model is measured, at most", default=16)


def run(options: Namespace) -> int:
    """Profile."""
    from stalegrid.engines import profile
    from stalegrid.recipes import make_task

    config = config_of(options)
    if options.out is not None and (exists(options.out) or not is_folder(options.out.parent)):
        raise ConfigError(f"the file exists, or its folder does not (out: {options.out}); name another one")
    made = profile(make_task(config), config, config.engine, options.parts, options.copies)
    console = wide()
    console.print(show.costs(made))
    if options.out is not None:
        made.write(options.out)
        console.print(f"costs are in {options.out}; give them with --costs {options.out}")
    return 0
