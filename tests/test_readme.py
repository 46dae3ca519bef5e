"""The lines that the README shows are run as they stand."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stalegrid.cli import main
from tests.scripts import run_script

README = Path(__file__).parents[1] / "README.md"


def scripts() -> tuple[str, str]:
    plain, transformer = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    return plain, transformer


@pytest.mark.parametrize("script", scripts(), ids=["plain", "transformer"])
def test_an_example_is_short(script: str) -> None:
    assert len([line for line in script.splitlines() if line.strip()]) <= 15


TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


@pytest.mark.parametrize("launcher", [[], pytest.param(TORCHRUN, marks=pytest.mark.thorough)])
def test_the_example_trains_alone_and_under_torchrun(launcher: list[str], tmp_path: Path) -> None:
    path = tmp_path / "example.py"
    path.write_text(scripts()[0])
    command = [sys.executable, *launcher, str(path)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr[-3000:]
    # Processes that share a pipe may write their line ends after each other's text, so lines are not to be counted.
    scores = re.findall(r"([\d.]+)% with Sequential", made.stdout)
    assert len(scores) == (2 if launcher else 1)
    assert len(set(scores)) == 1
    assert float(scores[0]) > 90


def test_the_example_of_hugging_face_trains(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("transformers", reason="transformers is not installed")
    path = tmp_path / "example.py"
    path.write_text(scripts()[1])
    run_script(path, tmp_path)
    out = capfd.readouterr().out
    found = re.search(r"([\d.]+)% with BertForSequenceClassification, cut before (.*)", out)
    assert found, out[-3000:]
    assert float(found[1]) > 50
    assert found[2] == "bert.encoder.layer.1"


def test_a_run_with_a_parameter_server_is_replayed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^stalegrid (train --method softsync .*?|replay .*?)\s*(?:#.*)?$", README.read_text(), re.M)
    assert [command.split()[0] for command in commands] == ["train", "replay"]
    for command in commands:
        assert main(command.split()) == 0


def test_a_run_in_virtual_time_is_profiled_planned_trained_and_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    wanted = r"^stalegrid ((?:profile|plan|train --engine simulator|report) .*?)\s*(?:#.*)?$"
    commands = re.findall(wanted, README.read_text(), flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["profile", "plan", "train", "report"]
    for command in commands:
        assert main(command.split()) == 0
    assert (tmp_path / "runs" / "c" / "report.html").exists()
