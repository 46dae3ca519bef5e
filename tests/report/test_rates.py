"""Whether the learning rate went above what stages bear, as the page says it."""

import json
from pathlib import Path

import pytest

from stalegrid.report.rates import rates_verdict
from stalegrid.report.told import read_told
from tests.report.cases import Record, diagnosed, folder_of, page_of, reported, said, trained

SMALL = ("--method", "dsp", "--stages", "2", "--groups", "1", "--updates", "10", "--output.limits", "true")


def test_a_rate_that_every_stage_bears(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL, "--lr", "0.001", "--schedule", "constant")
    (line,) = said(rates_verdict, run)
    assert line.startswith("well: The learning rate stayed within 0.0")
    assert line.endswith(" bear with a staleness of 2 by the curvature that the model began with: 0.001 at most.")


@pytest.mark.filterwarnings("ignore:the schedule's highest rate is above")
def test_a_rate_that_no_stage_bears(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL, "--lr", "0.3", "--schedule", "constant")
    lowest = min(limit["rate"] for limit in run.limits["each"])
    (line,) = said(rates_verdict, run)
    assert line.startswith(f"wrong: The learning rate was above {lowest:.4g}, which ")
    assert line.endswith(", in the reports of updates 5 to 10: 0.3 at most.")


@pytest.mark.filterwarnings("ignore:the largest stable rate is not known")
def test_why_a_limit_is_not_known(tmp_path: Path) -> None:
    (line,) = said(rates_verdict, trained(tmp_path / "run", *SMALL, "--optimizer", "adam"))
    assert line.startswith("open: The largest stable rate is not known for this optimizer (Adam), ")


def limited(path: Path, rates: list[float], peak: float = 0.4) -> list[str]:
    folder = folder_of(path, metrics=[reported(5 * i, float(i), 1.0, lr=lr) for i, lr in enumerate(rates, start=1)])
    each: list[Record] = [
        {"stage": 0, "staleness": 2, "rate": 0.2, "why": ""},
        {"stage": 1, "staleness": 0, "rate": 0.9, "why": ""},
        {"stage": None, "staleness": 2, "rate": 0.3, "why": ""},
    ]
    (folder / "limits.json").write_text(json.dumps({"peak": peak, "each": each}))
    return said(rates_verdict, read_told(folder))


def test_stretches_are_told_from_report_to_report(tmp_path: Path) -> None:
    (line,) = limited(tmp_path, [0.1, 0.25, 0.4, 0.2, 0.3, 0.1])
    assert line == (
        "wrong: The learning rate was above 0.2, which stage 0 bears with a staleness of 2 by the curvature that the "
        "model began with, in the reports of updates 10 to 15 and the report of update 25: 0.4 at most."
    )


@pytest.mark.parametrize("rates", [[], [0.1, 0.2]])
def test_what_is_still_to_come_is_told(tmp_path: Path, rates: list[float]) -> None:
    (line,) = limited(tmp_path, rates)
    assert line.startswith("open: The schedule goes up to 0.4, above 0.2, which stage 0 bears ")


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    assert said(rates_verdict, read_told(folder_of(tmp_path))) == []


def diagnosed_at(path: Path, *found: tuple[float, float | None, float | None], **more: str) -> Path:
    """Make the folder of a run that was diagnosed at every fifth version: its rate, the limit of stage 0 and of all."""
    records = []
    for i, (rate, own, whole) in enumerate(found, start=1):
        stages = [{"error": None, "bound": None, "rate_limit": limit} for limit in (own, None)]
        records.append(diagnosed(5 * i, rate=rate, rate_limit=whole, stages=stages, **more))
    return folder_of(path, metrics=records)


def test_a_rate_above_the_limit_of_a_diagnosis(tmp_path: Path) -> None:
    found = [(0.3, 0.4, 0.2), (0.2, 0.4, 0.1), (0.1, 0.4, 0.1), (0.3, 0.2, 0.25)]
    (line,) = said(rates_verdict, read_told(diagnosed_at(tmp_path, *found)))
    assert line == (
        "wrong: The learning rate was above what stages bear by the curvature of then, in the diagnoses of versions 5 "
        "to 10 and the diagnosis of version 20: most so at version 10, 0.2 where all stages together bear 0.1."
    )


def test_a_rate_within_the_limits_of_diagnoses(tmp_path: Path) -> None:
    found = [(0.1, 0.4, 0.5), (0.3, 0.4, None), (0.3, None, None)]
    (line,) = said(rates_verdict, read_told(diagnosed_at(tmp_path, *found)))
    assert line == (
        "well: The learning rate stayed within what stages bear by the curvature of then, in the diagnoses of versions "
        "5 to 10: nearest to it at version 10, 0.3 where stage 0 bears 0.4."
    )


def test_groups_that_part_at_any_rate_bear_none(tmp_path: Path) -> None:
    (line,) = said(rates_verdict, read_told(diagnosed_at(tmp_path, (0.1, 0.0, 0.0))))
    assert line.endswith("in the diagnosis of version 5: most so at version 5, 0.1 where stage 0 bears 0.")


def test_the_first_curvature_and_that_of_diagnoses_are_told_apart(tmp_path: Path) -> None:
    limited(tmp_path, [0.1], peak=0.1)
    diagnosed_at(tmp_path, (0.1, 0.05, 0.2))
    assert [line.partition(" by the curvature ")[::2] for line in said(rates_verdict, read_told(tmp_path))] == [
        (
            "well: The learning rate stayed within 0.2, which stage 0 bears with a staleness of 2",
            "that the model began with: 0 at most.",
        ),
        (
            "wrong: The learning rate was above what stages bear",
            "of then, in the diagnosis of version 5: most so at version 5, 0.1 where stage 0 bears 0.05.",
        ),
    ]


def test_why_diagnoses_know_no_limit_is_told(tmp_path: Path) -> None:
    folder = diagnosed_at(tmp_path, (0.1, None, None), (0.1, None, None), rate_limit_why="not known for this")
    assert said(rates_verdict, read_told(folder)) == ["open: The largest stable rate is not known for this."]


def test_what_diagnoses_have_measured_is_not_asked_for(tmp_path: Path) -> None:
    asked = "which learning rates it bears (--output.limits true)"
    assert asked in page_of(folder_of(tmp_path / "without")).source
    assert asked in page_of(diagnosed_at(tmp_path / "unknown", (0.1, None, None))).source
    page = page_of(diagnosed_at(tmp_path / "with", (0.3, 0.4, 0.2)))
    assert asked not in page.source
    assert page.of("strong")[0] == "wrong"
    assert page.of("span")[0].startswith("The learning rate was above what stages bear by the curvature of then, ")


def test_the_page_and_the_console_agree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(tmp_path / "run", *SMALL[:-2], "--lr", "0.3", "--schedule", "constant", "--diagnose", "5")
    assert "rate 0.3 (bound 0." in capsys.readouterr().out
    (line,) = said(rates_verdict, run)
    assert line.startswith("wrong: The learning rate was above what stages bear by the curvature of then, in the diagn")
