"""What docs/reshaping.md shows is run as it stands."""

import json
import re
import shlex
from pathlib import Path

import pytest

from stalegrid.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "reshaping.md").read_text()


def test_the_commands_run_one_after_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^stalegrid (.*)$", PAGE, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "reshape", "export", "train"]
    for command in commands:
        assert main(shlex.split(command, comments=True)) == 0
    summary = json.loads((tmp_path / "runs" / "b" / "summary.json").read_text())
    assert summary["start"]["batches_dropped"] > 0
    assert json.loads((tmp_path / "runs" / "c" / "summary.json").read_text())["start"]["file"] == "a.safetensors"


def test_the_plain_loop_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    exec(compile(code, "example.py", "exec"), {"__name__": "example"})
    assert {path.name for path in tmp_path.iterdir()} == {"loop.safetensors", "loop.optimizer.safetensors"}
