"""The command line where what it prints or is given is unusual; each a process or a call of its own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from stalegrid.cli import main

QUICK = ("train", "--engine", "simulator", "--updates", "2")
LONG = "x" * 300
Said = pytest.CaptureFixture[str]


def said_line(capsys: Said, *arguments: str) -> str:
    """Return the one line with which a command is refused."""
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    return said


def test_a_folder_that_looks_like_markup_is_told_as_it_is(tmp_path: Path, capsys: Said) -> None:
    for name in ("x[/red]", "[bold]y", ":smile: größe"):
        assert main([*QUICK, "--out", str(tmp_path / name)]) == 0
        assert f"results are in {tmp_path / name}\n" in capsys.readouterr().out
        assert (tmp_path / name / "summary.json").exists()


BAD = {
    "seed": ([*QUICK, "--seed", "99999999999999999999"], "--seed must be a whole number of 64 bits"),
    "digits": ([*QUICK, "--seed", "1" + 5000 * "0"], "--seed must be a whole number of 64 bits"),
    "threads": ([*QUICK, "--engine.threads", "1000000"], "at most 256 (threads: 1000000)"),
    "stages": ([*QUICK, "--stages", "1000000000"], "a grid has at most 1000 of its stages (stages: 1000000000)"),
    "staleness": ([*QUICK, "--staleness", "1000000000,0"], "runs ahead by at most 10000 batches"),
    "epochs": (["train", "--epochs", "1e300"], "the run would never end (epochs: 1e+300)"),
    "infinite": ([*QUICK, "--lr", "1e999"], "--lr must be a number that is not infinite (--lr: '1e999')"),
    "long-out": ([*QUICK, "--out", LONG], "the path cannot be used (path: xxx"),
    "long-data": ([*QUICK, "--data", "mnist", "--data.folder", LONG], "the path cannot be used (path: xxx"),
    "long-costs": ([*QUICK, "--costs", LONG], "File name too long"),
    "long-report": (["report", LONG], "File name too long"),
    "long-comparison": (["compare", "--methods", "sgd", "--out", LONG], "the path cannot be used (path: xxx"),
    "long-profile": (["profile", "--out", LONG], "the path cannot be used (path: xxx"),
    "no-text": ([*QUICK, "--out", os.fsdecode(b"\xff")], "an argument is not text in UTF-8"),
    "null": ([*QUICK, "--out", "a\0b"], "--out must be a path in UTF-8"),
    "listed-stages": (["methods", "--stages", "1000000"], "a grid has at most 1000"),
    "drawn-stages": (["table", "--stages", "1000000"], "a grid has at most 1000"),
    "drawn-updates": (["table", "--updates", "100000000"], "at most 1000 updates (updates: 100000000)"),
    "devices": (["plan", "--units", "1000000000"], "(units: 1000000000)"),
    "memory": (["plan", "--units", "2", "--memory", "1e999"], "(--memory: '1e999')"),
    "seeds": (["compare", "--methods", "sgd", "--seeds", "100000000000", "--out", "never"], "at most 1000 seeds"),
    "option": ([*QUICK, "--colour", "red"], "--colour"),
    "command": (["paint"], "unknown command (command: 'paint')"),
    "nothing": ([], "expected"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_out_of_range_is_a_line(name: str, capsys: Said) -> None:
    arguments, expected = BAD[name]
    assert expected in said_line(capsys, *arguments)


def test_a_picture_needs_a_matplotlib_that_loads(tmp_path: Path, capsys: Said, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    assert "a report needs matplotlib, which does not load" in said_line(capsys, "report", str(tmp_path))


BROKEN = """
import sys, types
sys.modules["torch.utils.tensorboard"] = types.ModuleType("broken")
"""


@pytest.mark.parametrize(
    ("flags", "where", "errors"),
    [
        ("-OO", ">/dev/full", ["what is printed cannot be written (stdout)", "training goes on without TensorBoard"]),
        pytest.param("", ">&-", ["training goes on without TensorBoard"], marks=pytest.mark.thorough),
    ],
)
def test_training_goes_on_without_what_is_optional(tmp_path: Path, flags: str, where: str, errors: list[str]) -> None:
    (tmp_path / "sitecustomize.py").write_text(BROKEN)
    command = f"{sys.executable} {flags} -m stalegrid {' '.join(QUICK)} --out {tmp_path}/out {where}"
    path = os.pathsep.join((str(tmp_path), *sys.path))
    environment = {**os.environ, "PYTHONPATH": path}
    found = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=120, env=environment)
    assert found.returncode == 0, found.stderr
    assert (tmp_path / "out" / "summary.json").exists()
    lines = found.stderr.splitlines()
    assert len(lines) == len(errors), lines
    assert all(line.startswith(error) for line, error in zip(lines, errors, strict=True)), lines


def test_help_needs_no_docstrings() -> None:
    command = [sys.executable, "-OO", "-m", "stalegrid", "train", "--help"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    assert "--batch-size" in found.stdout
