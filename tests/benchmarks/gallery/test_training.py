import dataclasses
import json
from pathlib import Path

import pytest

from benchmarks.gallery.entries import ENTRIES
from benchmarks.gallery.entry import Trial
from benchmarks.gallery.kept import by_seed, done, keep
from benchmarks.gallery.training import train

ENTRY = ENTRIES["fdg"]
TRIAL = ENTRY.trials("smoke")[1]


def with_options(trial: Trial, *more: str) -> Trial:
    return dataclasses.replace(trial, options=(*trial.options, *more))


def test_a_trial_that_has_ended_is_not_trained_again(tmp_path: Path) -> None:
    found = train(TRIAL, tmp_path, tmp_path / "runs")
    folder = tmp_path / "runs" / TRIAL.name
    assert found["failed"] is None
    assert 0 < found["test_error"] < 100
    assert found["staleness"] == [1, 0]
    assert found["curve"][-1][1:] == [found["test_error"], found["test_loss"]]
    written = (folder / "summary.json").stat().st_mtime_ns
    again = train(TRIAL, tmp_path, tmp_path / "runs")  # its end was not noted
    assert (folder / "summary.json").stat().st_mtime_ns == written
    assert {**again, "seconds": 0} == {**found, "seconds": 0}


def test_a_loss_that_is_not_a_number_is_a_result(tmp_path: Path) -> None:
    found = train(with_options(TRIAL, "--lr", "1e30"), tmp_path, tmp_path / "runs")
    assert "nan" in found["failed"] or "not a number" in found["failed"] or "inf" in found["failed"]


def test_how_late_gradients_were_is_kept_one_by_one(tmp_path: Path) -> None:
    (trial,) = [trial for trial in ENTRIES["learners"].trials("smoke") if trial.way == "n=2, inverse"]
    found = train(trial, tmp_path, tmp_path / "runs")
    counts = found["tau_counts"]
    assert sum(counts) == 8 * 2  # updates, and gradients an update of 4 learners
    assert sum(late * number for late, number in enumerate(counts)) == pytest.approx(found["tau"] * sum(counts))
    assert len(counts) == found["tau_max"] + 1


def test_what_is_kept_is_of_the_same_options(tmp_path: Path) -> None:
    keep(TRIAL, {"test_error": 3.0, "failed": None}, tmp_path)
    other = with_options(TRIAL, "--lr", "0.01")
    assert done([TRIAL, other], tmp_path).keys() == {TRIAL}
    assert by_seed(ENTRY, "smoke", tmp_path)[0][TRIAL.way]["test_error"] == 3.0
    (line,) = (tmp_path / "fdg.jsonl").read_text().splitlines()
    assert tuple(json.loads(line)["options"]) == TRIAL.options
