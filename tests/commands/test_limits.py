"""The command that says which rates a run bears, the warning of a run, and the factors of a table."""

import json
import re
import warnings
from pathlib import Path

import pytest

from stalegrid.cli import main

SMALL = ("--method", "dsp", "--stages", "2", "--batch-size", "32", "--updates", "2", "--batches", "1")
Said = pytest.CaptureFixture[str]


def test_limits_shows_every_stage_and_all_of_them_together(capsys: Said) -> None:
    assert main(["limits", *SMALL, "--lr", "0.05", "--schedule", "constant"]) == 0
    shown = capsys.readouterr().out
    rows = [line.split() for line in shown.splitlines() if re.match(r" (0|1|all) ", line)]
    assert [row[:2] for row in rows] == [["0", "2"], ["1", "0"], ["all", "2"]]
    assert "the schedule's highest rate is 0.05" in shown
    assert "above it" in shown
    assert "all: along the largest curvature of the whole loss" in shown


def test_what_is_not_known_for_an_optimizer_is_said(capsys: Said) -> None:
    assert main(["limits", *SMALL, "--optimizer", "adamw"]) == 0
    assert "not known for this optimizer (AdamW)" in capsys.readouterr().out


def test_groups_that_mix_have_a_limit_of_their_own(capsys: Said) -> None:
    assert main(["limits", *SMALL, "--groups", "2", "--mixing", "combine-while-adapt", "--batch-size", "16"]) == 0
    shown = capsys.readouterr().out
    assert "as groups mix" in shown
    assert "mixing by itself: groups come together" in shown


def test_learners_have_no_limits(capsys: Said) -> None:
    assert main(["limits", "--method", "softsync"]) == 2
    said = capsys.readouterr().err
    assert "limits are those of a grid, whose staleness is known beforehand (method: softsync)" in said


def test_curvature_is_measured_at_a_given_model(tmp_path: Path, capsys: Said) -> None:
    out = tmp_path / "run"
    train = ["--method", "sgd", "--engine", "simulator", "--updates", "30", "--checkpoint", "20", "--out", str(out)]
    assert main(["train", *train]) == 0
    assert main(["export", str(out), "--to", str(tmp_path / "model.safetensors")]) == 0
    found = []
    for more in ([], ["--start-from", str(tmp_path / "model.safetensors")]):
        capsys.readouterr()
        assert main(["limits", "--method", "sgd", "--batches", "1", "--updates", "2", *more]) == 0
        found.append(capsys.readouterr().out)
    assert found[0] != found[1]


TRAIN = ["train", "--method", "dsp", "--stages", "2", "--batch-size", "32", "--updates", "2", "--engine", "simulator"]


def test_a_run_warns_where_its_schedule_goes_above_if_asked_to(tmp_path: Path) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        assert main([*TRAIN, "--lr", "0.3", "--output.limits", "--out", str(tmp_path / "run")]) == 0
    texts = [str(one.message) for one in said]
    assert texts[0].startswith("the schedule's highest rate is above what stage 0 bears with a staleness of 2 (rate: ")
    assert texts[-1].endswith("see stalegrid limits")
    assert (tmp_path / "run" / "summary.json").exists()
    limits = json.loads((tmp_path / "run" / "limits.json").read_text())
    assert limits["peak"] == pytest.approx(0.3, rel=0.01)
    assert [limit["stage"] for limit in limits["each"]] == [0, 1, None]


def test_a_run_that_is_not_asked_to_measures_nothing(tmp_path: Path) -> None:
    # A warning would be an error here.
    assert main([*TRAIN, "--lr", "0.3", "--out", str(tmp_path / "run")]) == 0
    assert not (tmp_path / "run" / "limits.json").exists()


def test_a_run_says_why_it_cannot_warn(tmp_path: Path) -> None:
    with pytest.warns(UserWarning, match="largest stable rate is not known for this optimizer"):
        assert main([*TRAIN, "--optimizer", "adam", "--output.limits", "--out", str(tmp_path / "run")]) == 0


def test_table_has_the_factor_of_every_stage(capsys: Said) -> None:
    assert main(["table", "--method", "pipedream", "--stages", "3"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    factors = [row[-2:] for row in rows if row and row[0] in "012" and "F0" not in row]
    # 2 sin(pi / (2 (2m + 1))) over 2, and 0.1 over 3.8 with momentum.
    assert [row[0] for row in factors] == ["0.309", "0.5", "1"]
    assert factors[1][1] == "0.0263"


def test_the_momentum_of_a_table_is_the_users(capsys: Said) -> None:
    assert main(["table", "--method", "pipedream", "--stages", "2", "--optimizer.momentum", "0.5"]) == 0
    assert "with momentum 0.5" in capsys.readouterr().out
    assert main(["table", "--method", "pipedream", "--stages", "2", "--optimizer.momentum", "1.5"]) == 2
    assert "momentum is at least 0 and below 1 (optimizer.momentum: 1.5)" in capsys.readouterr().err
