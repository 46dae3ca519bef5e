"""What docs/diagnosing.md shows is run as it stands: the model, the file of options, and the table that is printed."""

import re
import sys
from pathlib import Path

import pytest

from stalegrid.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "diagnosing.md").read_text()
NUMBER = re.compile(r"\d+(?:\.\d+)?")


def block(language: str) -> str:
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)
    return str(found)


def rows(text: str) -> list[list[str]]:
    """Return the rows of the table, by cells."""
    lines = [line for line in text.splitlines() if re.search(r" (0|1|all) +\d", line)]
    return [re.split(r" {2,}", line.strip()) for line in lines if not line.startswith(("update", "epoch"))]


def test_the_example_prints_its_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(block("python"))
    (tmp_path / "run.yaml").write_text(block("yaml"))
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(sys.modules, "mine", raising=False)
    assert main(["diagnose", "run.yaml", "--out", "run"]) == 0
    printed = capsys.readouterr().out
    shown, found = rows(PAGE), rows(printed)
    assert len(shown) == 13
    for line, other in zip(shown, found, strict=True):
        assert len(line) == len(other)
        for cell, own in zip(line, other, strict=True):
            # Other kernels round otherwise, and training goes on from there.
            assert float(own) == pytest.approx(float(cell), rel=0.02) if NUMBER.fullmatch(cell) else own == cell
    assert "all versions are in run" in printed
    assert [path.name for path in (tmp_path / "run").glob("metrics.jsonl")]


def test_learners_are_refused_in_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", "--method", "softsync", "--learners", "2", "--updates", "40"]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert "a grid, whose staleness is known beforehand (method: softsync, output.diagnose: 20)" in said
