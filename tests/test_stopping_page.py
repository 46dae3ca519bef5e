"""The commands that docs/stopping.md shows are run as they stand."""

import re
from pathlib import Path

import pytest
import yaml

from stalegrid.cli import main

PAGE = (Path(__file__).parents[1] / "docs" / "stopping.md").read_text()


def test_the_commands_of_the_page_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    commands = re.findall(r"^stalegrid (.*?)$", PAGE, flags=re.MULTILINE)
    assert [command.split()[0] for command in commands] == ["train", "resume", "train", "resume", "train", "join"]
    first, back, job, on, grid, join = (command.split() for command in commands)
    model = Path("runs/kept/model.safetensors")
    assert main(first) == 0
    bits = model.read_bytes()
    model.unlink()
    assert main(back) == 0
    assert model.read_bytes() == bits
    model.unlink()
    Path("runs/kept/checkpoints/ended").unlink()  # as if it had left before its end
    assert main(on) == 0
    assert model.read_bytes() == bits
    # Cuts are measured, on a busy machine otherwise than before; the new run is to have those of the first.
    job += ["--cuts", ",".join(yaml.safe_load(Path("runs/kept/config.yaml").read_text())["grid"]["cuts"])]
    assert main(job) == 0
    assert Path("runs/job/model.safetensors").read_bytes() == bits
    assert main(job) == 2  # it has ended
    assert main([*grid, "--updates", "60"]) == 0
    assert main(join) == 2  # it has ended
    Path("runs/grid/checkpoints/ended").unlink()
    assert main(join) == 0
