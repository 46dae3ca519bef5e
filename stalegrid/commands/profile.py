"""Measures what the parts of a model cost."""

from pathlib import Path

from jsonargparse import ArgumentParser, Namespace

from stalegrid.commands.options import MODEL, add_fields, config_of, fields_of
from stalegrid.errors import ConfigError
from stalegrid.observe.tables import wide
from stalegrid.planner import show
from stalegrid.written.files import exists, is_folder

ABOUT = "measure what the parts of a model cost on this machine"
USAGE = "[options]"

MACHINE = (
    "training.batch_size",
    "training.dtype",
    "training.seed",
    "engine.device",
    "engine.threads",
    "grid.cuts",
)
"""What a batch takes depends on."""


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    add_fields(parser, [*fields_of(*MODEL), *MACHINE])
    add_parts(parser)
    parser.add_argument("--copies", type=int, default=1, help="processes that measure at once")
    parser.add_argument("--out", type=Path, help="file for the costs")


def add_parts(parser: ArgumentParser) -> None:
    """Add how finely a model is measured."""
    parser.add_argument("--parts", type=int, default=16, help="parts in which the model is measured, at most")


def run(options: Namespace) -> int:
    """Profile."""
    from stalegrid.engines.profile import profile
    from stalegrid.recipes.task import make_task

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
