"""Writes the page of a run, or of two side by side."""

from argparse import Namespace
from pathlib import Path

from stalegrid.commands.options import Parser, add_own
from stalegrid.observe import make_console

ABOUT = "write a run's report.html, or show two runs side by side"
USAGE = "DIR [OTHER] [--out FILE]"


def ask(parser: Parser) -> None:
    """Add the options."""
    parser.add_argument("run", type=Path, metavar="DIR", help="folder of a run")
    about = "folder of another run, to be shown beside it in one page, report-beside-OTHER.html"
    parser.add_argument("other", type=Path, nargs="?", metavar="OTHER", help=about)
    add_own(parser, "--out", Path | None, "page to write; in the folder of the (first) run if left out")


def run(options: Namespace) -> int:
    """Write the page."""
    from stalegrid.report import write_comparison, write_report

    if options.other is None:
        path = write_report(options.run, options.out)
    else:
        path = write_comparison(options.run, options.other, options.out)
    make_console().print(f"the report is {path}", soft_wrap=True)
    return 0
