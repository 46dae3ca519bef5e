"""Trains several methods on the same samples from the same weights."""

from jsonargparse import ArgumentParser, Namespace

from stalegrid.commands.options import EVERYTHING, METHODS, add_fields, config_of
from stalegrid.errors import ConfigError
from stalegrid.observe.tables import plain, wide

ABOUT = "train several methods on the same samples from the same weights"
USAGE = "[RUN.yaml] --methods A,B --out DIR [options]"


def ask(parser: ArgumentParser) -> None:
    """Add the options."""
    add_fields(parser, EVERYTHING)
    parser.add_argument(METHODS, type=list[str], required=True, help="what to compare, such as sgd,1f1b,pham-ahn")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from the one of --seed on")


def run(options: Namespace) -> int:
    """Compare."""
    from stalegrid.studies.compare import compare
    from stalegrid.studies.comparison import failures, table

    config = config_of(options)
    if config.output.folder is None:
        raise ConfigError("a comparison is kept in a folder (out: None); name one with --out DIR")
    made = compare(config, options.methods, options.seeds, config.output.folder)
    headings, *rows = table(made)
    shown = plain(*headings)
    for column in shown.columns:
        column.overflow = "fold"
    for row in rows:
        shown.add_row(*row)
    console = wide()
    console.print(shown)
    failed = failures(made)
    for line in (*(f"failed: {line}" for line in failed), f"table, numbers and plot are in {config.output.folder}"):
        console.print(line, soft_wrap=True)
    return 1 if failed else 0
