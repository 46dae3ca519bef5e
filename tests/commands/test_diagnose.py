"""The command that trains and diagnoses, where there is nothing to show."""

from pathlib import Path

import pytest

from stalegrid.cli import main

QUICK = ("--updates", "6", "--output.evaluate-every", "0.01")
ENOUGH = """
import stalegrid

class Enough(stalegrid.Callback):
    def on_evaluation(self, record, model):
        return True
"""


def test_a_run_of_which_nothing_is_diagnosed_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", *QUICK, "--diagnose", "0", "--out", str(tmp_path / "run")]) == 2
    assert "no version would be diagnosed (diagnose: 0); say every" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_run_that_ends_before_a_version_is_diagnosed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "ending.py").write_text(ENOUGH)
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["diagnose", *QUICK, "--diagnose", "6", "--output.callbacks", "ending:Enough"]) == 0
    assert "the run was ended before a version was diagnosed (version: " in capsys.readouterr().out
