"""docs/performance.md shows what benchmarks/results.json holds."""

import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())
PAGE = (ROOT / "docs" / "performance.md").read_text()

SIZES = "bytes sent/sample"
"""Ratios that the page gives in bytes."""


def shown(value: float) -> bool:
    forms = {f"{value:.3f}", f"{value:.3g}"}
    return any(re.search(rf"(?<![\d.]){re.escape(form)}(?!\d)", PAGE) for form in forms)


@pytest.mark.parametrize("row", [row for row, found in RESULTS.items() if "skipped" not in found])
def test_every_median_is_on_the_page(row: str) -> None:
    ratios = {r["what"]: r["median"] for r in RESULTS[row]["ratios"] if SIZES not in r["what"]}
    assert ratios
    missing = {what: median for what, median in ratios.items() if not shown(median)}
    assert not missing


def test_every_row_is_named_on_the_page() -> None:
    assert not [row for row in RESULTS if f"`{row}`" not in PAGE]
