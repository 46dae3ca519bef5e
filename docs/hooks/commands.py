"""The commands and their options on a page, as the parser of the command line has them.

Does not know: which commands there are, what they do.
"""

import argparse
import html
import re
from collections.abc import Iterable
from functools import partial
from typing import Any

from mkdocs.structure.pages import Page

from stalegrid.cli import make_parser

PLACE = "<!-- the commands -->"
"""In a page: they stand here."""


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Put the commands where the page has a place for them."""
    return markdown.replace(PLACE, told()) if PLACE in markdown else markdown


def told() -> str:
    """Return a section a command, in the order of ``stalegrid --help``."""
    sections = []
    for name, parser in make_parser()[1].items():
        parser.formatter_class = partial(InMarkdown, parser.formatter_class)
        sections.append(f"## stalegrid {name}\n\n{parser.format_help()}")
    return "\n".join(sections)


class InMarkdown(argparse.HelpFormatter):
    """Makes a heading and a table of what is otherwise a block of indented lines.

    Args:
        usual: the formatter of the terminal, which knows the name under which people use an option.
        prog: the command.
    """

    def __init__(self, usual: Any, prog: str) -> None:
        super().__init__(prog)
        self._invocation = usual(prog)._format_action_invocation
        self._said: list[str] = []

    def add_usage(self, usage: str | None, actions: Any, groups: Any, prefix: str | None = None) -> None:
        """Show how the command is called."""
        self._said.append(f"```\n{usage}\n```\n")

    def add_text(self, text: str | None) -> None:
        """Show a paragraph."""
        if text and text is not argparse.SUPPRESS:
            self._said.append(f"{text}\n")

    def start_section(self, heading: str | None) -> None:
        """Begin a group of options."""
        self._said.append(f"**{heading}**\n")

    def end_section(self) -> None:
        """End it; one that has no options was not worth a heading."""
        if self._said[-1].startswith("**"):
            self._said.pop()

    def add_arguments(self, actions: Iterable[argparse.Action]) -> None:
        """Show options, one a row."""
        rows = [self._row(action) for action in actions if action.help is not argparse.SUPPRESS]
        if rows:
            self._said.append("\n".join(["| option | |", "|---|---|", *rows]) + "\n")

    def format_help(self) -> str:
        """Return all that was said."""
        return "\n".join(self._said)

    def _row(self, action: argparse.Action) -> str:
        about = (action.help or "") % vars(action)
        return f"| {_code(self._invocation(action))} | {_cell(about)} |"


def _code(text: str) -> str:
    """Return a name that is not broken, as it would be at its hyphens."""
    return f'<code style="white-space: nowrap">{_cell(text)}</code>'


def _cell(text: str) -> str:
    """Return a text that means itself in a cell of a table."""
    return re.sub(r"([*_\[\]])", r"\\\1", html.escape(text)).replace("|", "&#124;")
