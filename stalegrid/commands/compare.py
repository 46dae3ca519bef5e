"""Trains several methods on the same samples from the same weights."""

from argparse import Namespace

from stalegrid.commands.options import EVERYTHING, METHODS, Parser, add_fields, add_own, config_of
from stalegrid.errors import ConfigError
from stalegrid.observe import plain, wide

ABOUT = "train several methods on the same samples from the same weights"
USAGE = "[RUN.yaml] --methods A,B --out DIR [options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    own = parser.add_argument_group("what is compared")
    add_own(own, METHODS, list[str], "such as sgd,1f1b,pham-ahn, or PACKAGE.MODULE:NAME", required=True)
    add_own(own, "--seeds", int, "how many, from the one of --seed on", default=3)
    add_fields(parser, EVERYTHING)  # the method too: a file of a run says things for its own alone


def run(options: Namespace) -> int:
    """Compare."""
    from stalegrid.studies import compare, failures, table

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
