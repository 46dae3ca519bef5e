"""A script whose run leaves, and that is run again; and one that gives another model, data or optimizer."""

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.checkpoints import newest
from stalegrid.engines import leaving
from stalegrid.errors import ConfigError, Interrupted

X = torch.arange(256.0).reshape(64, 4) / 256


class Leave(stalegrid.Callback):
    """Sends this process a signal, once."""

    def __init__(self, at: int) -> None:
        self.at = at

    def on_report(self, record: Any) -> None:
        if record["update"] == self.at:
            os.kill(os.getpid(), signal.SIGTERM)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let such short updates not be many from one look to the next."""
    monkeypatch.setattr(leaving, "LOOK", 0.0)


def run(out: Path, *, at: int = 0, width: int = 8, rate: float = 0.1, shift: float = 0.0, **more: Any) -> Any:
    model = nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))
    with torch.no_grad():
        for p in model.parameters():
            p.fill_(0.1)
    data = TensorDataset(X + shift, (X.sum(1) > 2).long())
    return stalegrid.train(
        model,
        data,
        test=data,
        optimizer=lambda p: torch.optim.SGD(p, lr=rate),
        stages=2,
        batch_size=4,
        out=out,
        **{
            "updates": 40,
            "engine": "simulator",
            "checkpoint": 10,
            "loss": nn.CrossEntropyLoss(),
            "groups": 1,
            "output": stalegrid.OutputSettings(log_every=2),
            "callbacks": [Leave(at)],
            **more,
        },
    )


@pytest.fixture
def left(tmp_path: Path) -> Path:
    with pytest.raises(Interrupted, match="it goes on to the bit with: the same script, with train"):
        run(tmp_path / "left", at=14)
    return tmp_path / "left"


def test_a_script_that_is_run_again_goes_on_to_the_bit(left: Path, tmp_path: Path) -> None:
    whole = run(tmp_path / "whole", quiet=True)
    for resume in (left, "auto"):
        more: dict[str, Any] = {"out": left} if resume == "auto" else {"out": None}
        if resume == "auto":
            (left / "checkpoints" / "ended").unlink()
        found = run(**more, resume=resume, quiet=True)
        pairs = zip(whole.model.parameters(), found.model.parameters(), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


class Signal:
    """A loss that sends the process that it was made in a signal, once."""

    def __init__(self, at: int) -> None:
        self.left, self.starter = at, os.getpid()

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        if not self.left:
            os.kill(self.starter, signal.SIGINT)
        return nn.functional.cross_entropy(outputs, targets)


@pytest.mark.parametrize("more", [{}, {"groups": 2, "mixing": stalegrid.MixingSettings(period=2, lag=1)}])
def test_how_soon_it_leaves_does_not_depend_on_reports_and_evaluations(more: dict[str, Any], tmp_path: Path) -> None:
    more |= {"output": stalegrid.OutputSettings(log_every=100, evaluate_every=0), "callbacks": [], "quiet": True}
    whole = run(tmp_path / "whole", **more)
    out = tmp_path / "left"
    # It is called a few times before the first update, and then once an update, by each group its own.
    with pytest.raises(Interrupted):
        run(out, loss=Signal(15), **more)
    source = newest(out)
    assert source is not None
    assert 10 < source.version <= 25
    assert [path.name for path in (out / "checkpoints").iterdir() if (path / "manifest.json").exists()]
    found = run(None, resume=out, loss=Signal(15), **more)  # type: ignore[arg-type]
    pairs = zip(whole.model.parameters(), found.model.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)


def test_real_processes_leave_without_a_report_too(tmp_path: Path) -> None:
    output = stalegrid.OutputSettings(log_every=10**6, evaluate_every=0)
    asked: dict[str, Any] = {"updates": 10**6, "output": output, "checkpoint": 10**6, "quiet": True}
    with pytest.raises(Interrupted):
        run(tmp_path / "left", engine="processes", loss=Signal(15), callbacks=[], **asked)
    source = newest(tmp_path / "left")
    assert source is not None
    assert 10 < source.version < 10**6


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"width": 9}, r"other layers \(layers.0: Linear .*out_features: 9.*then: "),
        ({"rate": 0.2}, r"other optimizers \(optimizers.group 0: .*lr: 0.2"),
        ({"shift": 1.0}, r"other data \(data.samples"),
        ({"seed": 5}, r"\(training.seed: 5, then: 0, checkpoint"),
        ({"dtype": "float64"}, r"training.dtype: float64, then: None"),
    ],
)
def test_another_run_is_refused_and_nothing_is_changed(other: dict[str, Any], why: str, left: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in left.rglob("*")}
    with pytest.raises(ConfigError, match=why):
        run(None, resume=left, **other)  # type: ignore[arg-type]
    assert before == {path: path.stat().st_mtime_ns for path in left.rglob("*")}
