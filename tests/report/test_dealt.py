"""Who has which labels, on the page of a run."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from stalegrid.errors import DataError
from stalegrid.report.dealt import MOST_GROUPS, MOST_LABELS, dealt_of
from stalegrid.report.report import write_report
from stalegrid.runs import execute
from tests.cases import make_settings, make_task
from tests.report.cases import Page

CIRCLE = 'style="fill: var(--blue)"'

FEW: dict[str, Any] = {"labels": [-1, 3], "groups": [[1200, 0], [0, 7], [300, 300]]}


def cells(html: str) -> list[list[str]]:
    rows = re.findall("<tr>(.*?)</tr>", html)
    return [re.findall("<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def test_a_table_has_every_count_of_few_labels() -> None:
    assert cells(dealt_of(FEW, "group")) == [
        ["group", "samples", "label -1", "label 3"],
        ["0", "1,200", "1,200", "0"],
        ["1", "7", "0", "7"],
        ["2", "600", "300", "300"],
    ]


def test_a_table_of_many_labels_says_how_many_there_are() -> None:
    counts = [[0] * 99 + [5], [3] + [0] * 98 + [1]]
    html = dealt_of({"labels": list(range(100)), "groups": counts}, "learner")
    assert cells(html) == [
        ["learner", "samples", "labels", "most frequent", "its share"],
        ["0", "5", "1", "99", "100.0%"],
        ["1", "4", "2", "0", "75.0%"],
    ]
    assert f"The first {MOST_LABELS} labels of the first 2 learners are drawn." in html


def test_there_is_a_circle_for_each_count_that_is_not_0() -> None:
    html = dealt_of(FEW, "group")
    assert html.count(CIRCLE) == 4
    assert html.count("Samples of each label by group") == 2
    more = {"labels": [0], "groups": [[1]] * (MOST_GROUPS + 3)}
    assert dealt_of(more, "group").count(CIRCLE) == MOST_GROUPS


def trained(folder: Path, **changes: Any) -> Path:
    execute(make_task(), make_settings(2, 1, folder=folder, engine="simulator", **changes), quiet=True)
    write_report(folder)
    return folder


def test_the_page_of_a_run_says_it(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", split="shards=2")
    dealt = json.loads((run / "summary.json").read_text())["dealt"]
    page = Page(run / "report.html")
    assert "Data" in page.of("h2")
    for counts in dealt["groups"]:
        assert f"<td>{sum(counts)}</td><td>{counts[0]}</td>" in page.source
    assert "Data" not in Page(trained(tmp_path / "even") / "report.html").of("h2")


@pytest.mark.parametrize("groups", [[], [[1]], [[0, 0]], [["1", 2]]])
def test_a_damaged_summary_is_named(groups: list[Any], tmp_path: Path) -> None:
    run = trained(tmp_path / "run", split="shards=2")
    summary = json.loads((run / "summary.json").read_text())
    (run / "summary.json").write_text(json.dumps(summary | {"dealt": {"labels": [0, 1], "groups": groups}}))
    with pytest.raises(DataError, match=r"summary\.json"):
        write_report(run)
