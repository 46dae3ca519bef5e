"""An interrupt: at a prompt the model that was measured last comes back, in a script the interrupt does."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.thorough

SCRIPT = """
import os
import signal
import sys
import warnings

import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid


class Interrupt(stalegrid.Callback):
    def __init__(self, at):
        self.at, self.starter = at, os.getpid()

    def on_evaluation(self, record, model):
        if record["version"] >= self.at and self.at:
            self.at = 0
            os.kill(self.starter, signal.SIGINT)

    def on_report(self, record):
        if not self.at and record["update"] < 5:
            os.kill(self.starter, signal.SIGINT)


if __name__ == "__main__":
    prompt, engine, at = sys.argv[1] == "prompt", sys.argv[2], int(sys.argv[3])
    if prompt:
        sys.ps1 = ">>> "
    x = torch.randn(64, 4)
    data = TensorDataset(x, (x.sum(1) > 0).long())
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    output = stalegrid.OutputSettings(log_every=1, evaluate_every=0.25)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        result = stalegrid.train(
            model, data, test=data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
            stages=2, groups=1, batch_size=4, updates=100000, engine=engine, quiet=True, output=output,
            callbacks=[Interrupt(at)])
    assert result.summary["version"] >= at, result.summary
    assert result.summary["test_loss"] > 0
    assert not all(torch.equal(a, b) for a, b in zip(result.model.parameters(), model.parameters()))
    assert any("interrupted" in str(one.message) for one in told), [str(one.message) for one in told]
    print("came back")
"""


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    script = folder / "script.py"
    script.write_text(SCRIPT)
    return subprocess.run(
        [sys.executable, str(script), *arguments], capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_at_a_prompt_the_last_measured_model_comes_back(engine: str, tmp_path: Path) -> None:
    done = run(tmp_path, "prompt", engine, "12")
    assert "came back" in done.stdout, done.stderr


def test_in_a_script_and_before_anything_was_measured_the_interrupt_goes_on(tmp_path: Path) -> None:
    for arguments in (("script", "simulator", "12"), ("prompt", "simulator", "0")):
        done = run(tmp_path, *arguments)
        assert "KeyboardInterrupt" in done.stderr, done.stderr
        assert "came back" not in done.stdout
