"""The examples run in a short form, on processes, as they are written."""

import re
from pathlib import Path

import pytest

from tests.scripts import run_script

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
def test_an_example_runs(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for package in NEEDS.get(name, ["sklearn"]):
        pytest.importorskip(package, reason=f"{package} is not installed")
    run_script(EXAMPLES / f"{name}.py", tmp_path, "--updates", "3")
    out, err = capfd.readouterr()
    assert re.search(PRINTS[name], out), out[-3000:]
    assert "Warning" not in err, err[-3000:]
    assert not list(tmp_path.iterdir())
