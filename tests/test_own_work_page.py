"""The files and commands that docs/own-work.md shows are run as they stand."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from stalegrid.cli import main
from tests.commands.own import modules_of

PAGE = (Path(__file__).parents[1] / "docs" / "own-work.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def commands(*names: str) -> list[list[str]]:
    lines = [shlex.split(line) for block in blocks("sh") for line in block.splitlines()]
    assert all(line[0] == "stalegrid" for line in lines)
    return [line[1:] for line in lines if line[1] in names]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(tmp_path)
    nets, sets = blocks("python")
    (run,) = blocks("yaml")
    (tmp_path / "run.yaml").write_text(run)
    with modules_of(tmp_path, nets=nets, sets=sets):
        yield tmp_path


@pytest.mark.timeout(280)
def test_training_runs_and_runs_again_to_the_same_bits(folder: Path) -> None:
    shown = commands("train")
    assert len(shown) == 5
    for command in shown:
        quick = ["--processes", "1"] if command is shown[0] else ["--engine", "simulator"]
        assert main([*command, *quick]) == 0
    second, again = (load_file(folder / "runs" / name / "model.safetensors") for name in ("second", "again"))
    assert second["0.weight"].shape == (64, 16)
    assert len(second) == 6
    assert all(torch.equal(second[name], again[name]) for name in second)


@pytest.mark.timeout(280)
def test_the_other_commands_run_and_plan_recommends_one_that_trains(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = commands("verify", "profile", "plan", "compare")
    assert [command[0] for command in shown] == ["verify", "profile", "plan", "compare"]
    for command in shown:
        quick = {"verify": ["--processes", "1"], "compare": ["--engine", "simulator"]}
        assert main([*command, *quick.get(command[0], [])]) == 0
        said = capsys.readouterr().out
        if command[0] == "plan":
            program, *recommended = shlex.split(said.splitlines()[-1])
            assert program == "stalegrid"
            assert main([*recommended, "--engine", "simulator", "--updates", "3", "--out", "planned"]) == 0
    assert yaml.safe_load((folder / "planned" / "config.yaml").read_text())["model"]["name"] == "nets:make"


def test_the_page_is_short() -> None:
    assert len(PAGE.splitlines()) < 110
