"""Tables of figures: NAME.json holds them as numbers, and pages of docs show them.

Does not know: how anything was measured.

A file says

* ``page``, ``section``: where the text is that speaks of its figures; docs/results.md if no page is named,
* ``machine``, ``commands``, ``kept``: what gave them, and what is kept of the runs,
* ``columns``: of every page that shows the table, a heading and how a cell is written, in Python's format language,
* ``printed``: that a page shows it as the command printed it, which is held by a test and not written anew,
* ``rows``: name -> what was measured; mean and spread over seeds are two numbers of a list.  What a row lacks is shown
  as -; ``cells`` are those that it writes in a way of its own,
* ``apart``: the same for what only the text speaks of,
* ``derived``: a value of rows -> how it follows from others of the row, or of other rows, by name,
* ``computed``: a piece of the text -> what its figures are, one by one, or an expression that must hold,
* ``stated``: a piece of the text whose figures follow from none of these -> where they are from.

Who repeats a run writes its figures into the file, and ``python -m benchmarks.tables`` writes the pages' tables anew;
``tests/benchmarks/test_tables.py`` holds pages and text to the files.
"""

import json
import re
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parent
ROOT = FOLDER.parents[1]
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))

_MARKED = re.compile(r"(<!-- table: ([\w-]+) -->\n\n)(?:\|.*\n)*")


def filled(path: Path) -> str:
    """Return the text of a page with every table that a comment names written anew."""
    page = path.relative_to(ROOT).as_posix()
    return _MARKED.sub(lambda found: found[1] + table(found[2], page), path.read_text())


def table(name: str, page: str) -> str:
    """Return a table as a page shows it, in Markdown.

    Args:
        name: of a file of this folder.
        page: its path from the root of the project.
    """
    # A number is shown with the digits that it was written with: 0.720, not 0.72.
    given = json.loads((FOLDER / f"{name}.json").read_text(), parse_float=str)
    columns = given["columns"][page]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in given["rows"].values():
        ways = {**columns, **row.get("cells", {})}
        lines.append(f"| {' | '.join(_cell(ways[head], row) for head in columns)} |")
    return "\n".join(lines) + "\n"


def _cell(way: str, row: dict[str, Any]) -> str:
    listed = {key: _Listed(value) if isinstance(value, list) else value for key, value in row.items()}
    try:
        return way.format(**listed)
    except KeyError:
        return "-"


class _Listed(list[Any]):
    """Is written with commas, such as the stages' staleness."""

    def __str__(self) -> str:
        return ", ".join(map(str, self))
