"""Whether the learning rate went above what stages bear, as the page says it."""

import json
from pathlib import Path

import pytest

from stalegrid.report.rates import rates_verdict
from stalegrid.report.told import read_told
from tests.report.cases import Record, folder_of, reported, said, trained

SMALL = ("--method", "dsp", "--stages", "2", "--groups", "1", "--updates", "10", "--output.limits", "true")


def test_a_rate_that_every_stage_bears(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL, "--lr", "0.001", "--schedule", "constant")
    (line,) = said(rates_verdict, run)
    assert line.startswith("well: The learning rate stayed within 0.0")
    assert line.endswith(" bear with a staleness of 2: 0.001 at most.")


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
        "wrong: The learning rate was above 0.2, which stage 0 bears with a staleness of 2, in the reports of updates "
        "10 to 15 and the report of update 25: 0.4 at most."
    )


@pytest.mark.parametrize("rates", [[], [0.1, 0.2]])
def test_what_is_still_to_come_is_told(tmp_path: Path, rates: list[float]) -> None:
    (line,) = limited(tmp_path, rates)
    assert line.startswith("open: The schedule goes up to 0.4, above 0.2, which stage 0 bears ")


def test_what_was_not_measured_is_left_out(tmp_path: Path) -> None:
    assert said(rates_verdict, read_told(folder_of(tmp_path))) == []
