"""What docs/theory.md and docs/diagnosing.md name beside their equations is there."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PLACE = re.compile(r"`((?:\w+/)+(?:\w+\.py)?|\w+\.py)`")
OWN = {"mine.py"}
"""What a reader makes."""


@pytest.mark.parametrize("page", ["theory", "diagnosing"])
def test_files_and_tests_beside_equations_are_there(page: str) -> None:
    named = set(PLACE.findall((ROOT / "docs" / f"{page}.md").read_text())) - OWN
    assert any(place.startswith("tests/") for place in named)
    assert [
        place for place in sorted(named) if not any((top / place).exists() for top in (ROOT, ROOT / "stalegrid"))
    ] == []
