"""docs/performance.md shows what benchmarks/results.json holds."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.figures import is_shown

ROOT = Path(__file__).parents[2]
RESULTS = json.loads((ROOT / "benchmarks" / "results.json").read_text())
PAGE = (ROOT / "docs" / "performance.md").read_text()

SIZES = "bytes sent/sample"
"""Ratios that the page gives in bytes."""


def table(head: str) -> list[list[str]]:
    """Return the cells of the rows of the table that begins with a line."""
    lines = PAGE.partition(head)[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]


def spread(measured: dict[str, Any]) -> tuple[float, ...]:
    return measured["median"], measured["least"], measured["greatest"]


def numbers(cell: str) -> list[str]:
    return re.findall(r"\d+(?:\.\d+)?", cell)


def are_shown(values: tuple[float, ...], cell: str) -> bool:
    return len(values) == len(numbers(cell)) and all(map(is_shown, values, numbers(cell)))


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


@pytest.mark.parametrize(("row", "what", "cell", "goal"), table("| row | ratio |"))
def test_every_number_of_a_line_is_of_its_row(row: str, what: str, cell: str, goal: str) -> None:
    ratios = [spread(ratio) for ratio in RESULTS[row.strip("`")]["ratios"]]
    if "ended at" in cell:
        ratios = [tuple(100 * value for value in spread(one)) for one in RESULTS[row.strip("`")]["figures"].values()]
    strange = [
        one for one in re.findall(r"\d+\.\d+", cell) if not any(is_shown(abs(v), one) for r in ratios for v in r)
    ]
    assert strange == []
    triples = re.findall(r"[\d.]+ \([\d.]+ to [\d.]+\)", cell)
    assert [triple for triple in triples if not any(are_shown(ratio, triple) for ratio in ratios)] == []


@pytest.mark.parametrize(("c", "steady", "over", "jitter", "over_jitter"), table("| c | steady"))
def test_the_frontier_is_that_of_the_file(c: str, steady: str, over: str, jitter: str, over_jitter: str) -> None:
    figures, ratios = RESULTS["frontier"]["figures"], RESULTS["frontier"]["ratios"]
    for sigma, times, ratio in (("0", steady, over), ("0.5", jitter, over_jitter)):
        names = [f"c={c} sigma={sigma} {what}, ms" for what in ("predicted", "measured")]
        assert are_shown(tuple(figures[name]["median"] for name in names), times)
        (found,) = [one for one in ratios if one["what"] == " / ".join(names)]
        assert are_shown(spread(found), ratio)


@pytest.mark.parametrize(("way", "rate", "updates", "seconds"), table("| seconds to a test loss"))
def test_seconds_to_a_loss_are_those_of_the_file(way: str, rate: str, updates: str, seconds: str) -> None:
    figures = RESULTS["far-loss"]["figures"]
    assert is_shown(figures[f"{way}, samples/s"]["median"], rate)
    assert are_shown(spread(figures[f"{way}, updates to a loss of 2.35"]), updates)
    assert are_shown(spread(figures[f"{way}, s to a loss of 2.35"]), seconds)
