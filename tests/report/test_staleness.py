"""Whether staleness stayed within its bound, as the page says it."""

import json
from pathlib import Path

import pytest

from stalegrid.report.staleness import staleness_verdict
from stalegrid.report.told import read_told
from tests.report.cases import SERVED, TAKEN, folder_of, said, taken, trained


def test_a_grid_stays_within_its_bound_and_more_would_be_told(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--method", "dsp", "--stages", "3", "--groups", "1", "--updates", "10")
    (line,) = said(staleness_verdict, run)
    assert line == "well: Staleness stayed within its bound: 4 of 4, 2 of 2 and 0 of 0 updates at most, stage by stage."
    summary = tmp_path / "run" / "summary.json"
    summary.write_text(json.dumps(run.summary | {"staleness_at_most": [3, 2, 0]}))
    (line,) = said(staleness_verdict, read_told(tmp_path / "run"))
    assert line.startswith("wrong: Staleness exceeded its bound at stage 0: 4 of 3, ")


def test_micro_batches_make_the_bound_smaller(tmp_path: Path) -> None:
    few = ("--stages", "2", "--groups", "1", "--micro-batches", "2", "--updates", "10")
    (line,) = said(staleness_verdict, trained(tmp_path / "run", *few))
    assert line.startswith("well: Staleness stayed within its bound: 1 of 1 and 0 of 0 ")


def test_before_the_first_evaluation_no_bound_is_known(tmp_path: Path) -> None:
    assert said(staleness_verdict, read_told(folder_of(tmp_path))) == []


def test_learners_without_a_bound_are_held_against_2n(tmp_path: Path) -> None:
    fresh = [taken(5, 1.0, [], l0=[3, 2], l1=[0, 4, 1])]
    (line,) = said(staleness_verdict, read_told(folder_of(tmp_path, SERVED, fresh)))
    assert line.startswith("well: 0% of the gradients were staler than 2n = 2, and there is no bound: 2 updates at ")
    (line,) = said(staleness_verdict, read_told(folder_of(tmp_path, SERVED, TAKEN)))
    assert line.startswith("wrong: 10% of the gradients were staler than 2n = 2, ")


@pytest.mark.parametrize(("bound", "mark"), [(3, "well: Staleness stayed within"), (2, "wrong: Staleness exceeded")])
def test_learners_with_a_bound_are_held_against_that(tmp_path: Path, bound: int, mark: str) -> None:
    config = SERVED | {"servers": SERVED["servers"] | {"max_staleness": bound}}
    (line,) = said(staleness_verdict, read_told(folder_of(tmp_path, config, TAKEN)))
    assert line == f"{mark} its bound of {bound}: 3 updates at most, 1.1 on average."


def test_a_run_of_learners_says_it(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", "--method", "softsync", "--learners", "3", "--updates", "10")
    (line,) = said(staleness_verdict, run)
    assert "staler than 2n = 2, and there is no bound" in line
