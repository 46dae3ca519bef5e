"""The page of architectures: a row for each model, held against what is found, or written.

Does not know: how a model is held against the plain loop.

``STALEGRID_WRITE=1 python -m pytest -n 0 tests/models`` writes it.  What is equal is held on every version of the
libraries; what captured a model, at how many places it can be cut, and the words of a refusal on those that the page
names; the cuts themselves balance measured times, and are only shown.
"""

import os
import re
from pathlib import Path
from types import ModuleType

from stalegrid.partition.following import REMEDY
from tests.models.holding import Held

PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"
WRITES = "STALEGRID_WRITE" in os.environ


def rows() -> dict[str, list[str]]:
    """Return the cells of the page, by model."""
    lines = re.findall(r"^\| `([^`]+)` \| (.*) \|$", PAGE.read_text(), flags=re.MULTILINE)
    return {name: cells.split(" | ") for name, cells in lines}


def _made_with(library: ModuleType) -> str:
    return f"{library.__name__} {library.__version__.partition('+')[0]}"


def keep(name: str, held: Held, *libraries: ModuleType) -> None:
    """Hold a row against what was found, or write it.

    Args:
        name: of the model, as the page shows it.
        held: what was found.
        libraries: that the rest of the row depends on.

    Raises:
        AssertionError: the page says something else.
    """
    cells = _cells(held)
    if WRITES:
        _write(name, cells, libraries)
        return
    captured, places, _, verdict = rows()[name]
    page = PAGE.read_text()
    if all(f"{_made_with(library)};" in page for library in libraries):
        assert [captured, places, verdict] == [cells[0], cells[1], cells[3]]
    assert verdict.startswith("refused") == (held.captured is None), held.verdict
    assert verdict.startswith("refused") or verdict == cells[3]


def _cells(held: Held) -> list[str]:
    if held.captured is None:
        return ["", "", "", f"refused: {held.verdict.removesuffix(f'; {REMEDY}')}"]
    tied = f"; tied: {', '.join(f'`{name}`' for name in held.tied)}" * bool(held.tied)
    return [held.captured, str(held.places), ", ".join(f"`{cut}`" for cut in held.cuts) + tied, held.verdict]


def _write(name: str, cells: list[str], libraries: tuple[ModuleType, ...]) -> None:
    text = PAGE.read_text()
    for library in libraries:
        text = re.sub(rf"{library.__name__} \d[\w.]*;", f"{_made_with(library)};", text)
    found = re.compile(rf"^\| `{re.escape(name)}` \|.*$", flags=re.MULTILINE)
    assert found.search(text), f"give {name} a row, empty, where it is to stand"
    PAGE.write_text(found.sub(lambda _: f"| `{name}` | {' | '.join(cells)} |", text))
