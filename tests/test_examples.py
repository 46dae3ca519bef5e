"""The examples run in a short form, on processes, as they are written."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[1] / "examples"
PRINTS = {
    "characters": r"test loss [\d.]+ a character, cuts \S+, \S+, \S+\nthe ",
    "files": r"test accuracy [\d.]+%",
    "finetune": r"test accuracy [\d.]+%, cuts bert\.\S+, bert\.\S+\n",
    "lora": r"test accuracy [\d.]+%, 2693 of 44037 parameters trained",
    "own_method": r"1f1b \(no staleness\): test accuracy [\d.]+%\npipemare: .*%\ncurrent: .*%\ntrust: .*%",
    "segmentation": r"overlap with the ink [\d.]+, cuts \S+, \S+\n",
}
NEEDS = {"characters": [], "finetune": ["sklearn", "transformers"]}
"""Packages; scikit-learn where nothing is said."""


def test_every_example_is_here() -> None:
    assert sorted(PRINTS) == sorted(path.stem for path in EXAMPLES.glob("*.py"))


@pytest.mark.timeout(280)
@pytest.mark.parametrize("name", PRINTS)
def test_an_example_runs(name: str, tmp_path: Path) -> None:
    for package in NEEDS.get(name, ["sklearn"]):
        pytest.importorskip(package, reason=f"{package} is not installed")
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), "--updates", "3"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=250)
    assert made.returncode == 0, made.stderr[-3000:]
    assert re.search(PRINTS[name], made.stdout), made.stdout[-3000:]
    assert "Warning" not in made.stderr, made.stderr[-3000:]
    assert not list(tmp_path.iterdir())
