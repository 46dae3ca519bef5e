"""Export, reshape and start-from, as they are typed."""

import json
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.commands.reshape import still_said

SMALL = ["--batch-size", "256", "--engine", "simulator", "--checkpoint", "2"]


def test_a_run_changes_its_shape_and_leaves_for_a_plain_loop_and_comes_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, new, file = str(tmp_path / "run"), str(tmp_path / "new"), str(tmp_path / "model.safetensors")
    assert main(["train", *SMALL, "--updates", "5", "--stages", "2", "--out", run]) == 0
    assert main(["reshape", run, "--stages", "3", "--updates", "7", "--out", new]) == 0
    summary = json.loads((tmp_path / "new" / "summary.json").read_text())
    assert (summary["stages"], summary["version"], summary["start"]["update"]) == (3, 7, 4)
    assert main(["export", new, "--to", file, "--group", "1"]) == 0
    assert (tmp_path / "model.optimizer.safetensors").exists()
    assert main(["train", *SMALL, "--updates", "2", "--start-from", file, "--out", str(tmp_path / "last")]) == 0
    assert json.loads((tmp_path / "last" / "summary.json").read_text())["start"] == {"file": file, "optimizer": "SGD"}
    capsys.readouterr()
    assert main(["reshape", run, "--stages", "3", "--out", run]) == 2
    assert "leaves the other one's folder as it is" in capsys.readouterr().err


def test_what_a_run_had_chosen_by_itself_is_chosen_anew_where_what_it_follows_from_changes() -> None:
    recorded = {"grid.stages": 2, "grid.cuts": ["5"], "method.name": "dsp", "method.staleness": [2, 0]}
    recorded["mixing.kind"] = "none"
    assert still_said(recorded, {"grid.stages": 2, "training.seed": 1}) == recorded
    assert still_said(recorded, {"grid.stages": 3}) == {
        "grid.stages": 2,
        "method.name": "dsp",
        "mixing.kind": "none",
    }
    assert still_said(recorded, {"method.name": "ddg"}) == {"grid.stages": 2, "grid.cuts": ["5"], "method.name": "dsp"}
