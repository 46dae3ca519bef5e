"""Writes the page of a run."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import Parser
from stalegrid.observe import make_console

ABOUT = "write a run's report.html"
USAGE = "DIR"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of a run")


def run(options: Namespace) -> int:
    """Write the page."""
    from stalegrid.report import write_report

    make_console().print(f"the report is {write_report(options.run)}", soft_wrap=True)
    return 0
