"""Writes the model of a checkpoint, and the state of its training, for a plain loop."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import Parser, add_own
from stalegrid.observe import tell

ABOUT = (
    "write the model and the optimizer's state of a checkpoint under the model's own names, for a plain PyTorch loop"
)
USAGE = "DIR --to FILE.safetensors [options]"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of a run with checkpoints, or of one of them")
    add_own(parser, "--to", Path, "file of the model; the optimizer's lies beside it", required=True)
    add_own(parser, "--group", int | None, "whose parameters and state; the mean over all groups if left out")


def run(options: Namespace) -> int:
    """Export."""
    from stalegrid.transfer import export

    version = export(options.run, options.to, group=options.group)
    tell(f"the model after {version} updates is in {options.to}; see stalegrid.load_exported")
    return 0
