"""On a GPU that all processes share: the same bits on every engine, interrupted or not, and as plain loops have there.

Skipped where there is none, and where it is not asked for: ``STALEGRID_GPU=1 python -m pytest tests/test_gpu.py``.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import stalegrid
from stalegrid.config import Settings
from stalegrid.studies.verifying import verify
from tests.cases import flat, make_settings, make_task

pytestmark = [
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU, and STALEGRID_GPU=1"),
    # torch says so of the first backward of a process, once, and goes on.
    pytest.mark.filterwarnings("ignore:Attempting to run cuBLAS, but there was no current CUDA context"),
]

X = torch.randn(96, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(96) % 4
DATA = TensorDataset(X, Y)


def net(dropout: float = 0.2) -> nn.Sequential:
    torch.manual_seed(0)
    lower = [nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(dropout)]
    return nn.Sequential(*lower, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))


def adamw(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


def start(out: Path, device: str, engine: str, model: nn.Module | None = None, **more: Any) -> None:
    asked: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": adamw,
        "test": DATA,
        "method": "pham-ahn",
        "groups": 2,
        "stages": 3,
        "mixing": stalegrid.MixingSettings(lag=1),
        "batch_size": 8,
        "updates": 12,
        "seed": 3,
        "checkpoint": stalegrid.CheckpointSettings(every=5, keep=9),
        "output": stalegrid.OutputSettings(folder=out, log_every=3, evaluate_every=0.5, loggers=[]),
        "quiet": True,
    } | more
    stalegrid.train(net() if model is None else model, DATA, device=device, engine=engine, **asked)


def read(folder: Path) -> tuple[list[dict[str, Any]], dict[str, torch.Tensor]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    timeless = [{k: v for k, v in line.items() if k not in ("seconds", "samples_per_second")} for line in lines]
    return timeless, load_file(folder / "model.safetensors")


def check_same(one: Path, other: Path) -> None:
    (lines, model), (other_lines, other_model) = read(one), read(other)
    assert lines == other_lines
    assert model.keys() == other_model.keys()
    assert all(torch.equal(model[name], other_model[name]) for name in model)


GRIDS: dict[str, dict[str, Any]] = {
    "sgd": {"groups": 1, "stages": 1, "method": "sgd"},
    "grid": {"groups": 2, "stages": 2, "lag": 1},
    "dsp": {"groups": 1, "stages": 3, "method": "dsp"},
    "fdg": {"groups": 1, "stages": 2, "method": "fdg"},
    "pipedream-2bw": {"groups": 1, "stages": 2, "method": "pipedream-2bw"},
    "gpipe": {"groups": 2, "stages": 2, "method": "gpipe"},
    "bfloat16": {"groups": 2, "stages": 2, "dtype": "bfloat16"},
}


@pytest.mark.parametrize("name", GRIDS)
def test_engines_and_plain_loops_have_the_same_bits(name: str) -> None:
    found = verify(make_task(), make_settings(**GRIDS[name], device="cuda"))
    assert [one.name for one in found] == ["processes", "plain loops"]
    assert all(one.equal for one in found), found


def test_servers_and_learners_have_the_bits_of_their_replay() -> None:
    asked = {"method": "softsync", "learners": 2, "servers": 2, "batch_size": 4, "updates": 8, "seed": 3}
    found = verify(make_task(), flat(Settings, **asked, device="cuda"))
    assert all(one.equal for one in found), found


@pytest.mark.parametrize("pinned", [False, True])
def test_a_loop_that_knows_nothing_of_the_library_has_the_same_bits(pinned: bool) -> None:
    def plain() -> nn.Sequential:
        torch.manual_seed(0)
        return nn.Sequential(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4))

    own = plain().cuda()
    optimizer, loss = adamw(own.parameters()), nn.CrossEntropyLoss()
    for x, y in DataLoader(DATA, batch_size=8):
        optimizer.zero_grad()
        loss(own(x.cuda()), y.cuda()).backward()
        optimizer.step()
    for engine in ("simulator", "processes"):
        trained = stalegrid.train(
            plain(),
            DataLoader(DATA, batch_size=8, pin_memory=pinned),
            loss=loss,
            optimizer=adamw,
            method="1f1b",
            groups=1,
            stages=2,
            micro_batches=1,
            epochs=1,
            engine=engine,
            device="cuda",
            quiet=True,
        )
        found = trained.model.state_dict()
        assert all(torch.equal(value.cpu(), found[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize(("engine", "then"), [("simulator", "processes"), ("processes", "simulator")])
def test_a_run_that_goes_on_has_the_bits_of_one_that_nobody_interrupted(engine: str, then: str, tmp_path: Path) -> None:
    start(tmp_path / "whole", "cuda", engine)
    start(tmp_path / "part", "cuda", engine)
    start(tmp_path / "part", "cuda", then, resume=tmp_path / "part" / "checkpoints" / "000000005")
    check_same(tmp_path / "whole", tmp_path / "part")


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize(("device", "then"), [("cpu", "cuda"), ("cuda", "cpu")])
def test_a_run_goes_on_where_other_bits_may_come_of_it_and_says_so(
    device: str, then: str, fused: bool, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def made(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=0.01, fused=fused)

    out = tmp_path / "run"
    start(out, device, "simulator", net(0), optimizer=made)
    before = read(out)[0]
    for engine in ("simulator", "processes"):
        start(out, then, engine, net(0), optimizer=made, resume=out / "checkpoints" / "000000005")
        told = f"other devices than before (device: {then}, then: {device})"
        assert told in capfd.readouterr().err
        now = read(out)[0]
        assert [line.get("update") for line in now] == [line.get("update") for line in before]
        assert now[0] == before[0]
        losses = [[line["loss"] for line in lines if line["kind"] == "train"] for lines in (before, now)]
        # Not to the bit, since a GPU sums in another order; without dropout, which draws other numbers there.
        assert losses[0] == pytest.approx(losses[1], rel=1e-3)


class Mixed(nn.Module):
    """Computes in half precision in the middle, or by where it is."""

    def __init__(self, dtype: torch.dtype | None, branch: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.b, self.c = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.dtype, self.branch = dtype, branch

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.branch:
            return self.c(self.b(self.a(x)) * (2 if x.device.type == "cuda" else 1))
        with torch.autocast(x.device.type, self.dtype):
            h = torch.relu(self.b(torch.relu(self.a(x))))
        return self.c(h.float())


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_mixed_precision_is_that_of_the_gpu(engine: str) -> None:
    own = Mixed(torch.bfloat16).cuda()
    optimizer, loss = adamw(own.parameters()), nn.CrossEntropyLoss()
    for x, y in DataLoader(DATA, batch_size=8):
        optimizer.zero_grad()
        loss(own(x.cuda()), y.cuda()).backward()
        optimizer.step()
    trained = stalegrid.train(
        Mixed(torch.bfloat16),
        DataLoader(DATA, batch_size=8),
        loss=loss,
        optimizer=adamw,
        method="1f1b",
        groups=1,
        stages=2,
        cuts=["b"],
        micro_batches=1,
        epochs=1,
        engine=engine,
        device="cuda",
        quiet=True,
    )
    assert trained.summary["captured"] == "torch.export"
    found = trained.model.state_dict()
    assert all(torch.equal(value.cpu(), found[name]) for name, value in own.state_dict().items())


@pytest.mark.parametrize("model", [Mixed(None), Mixed(None, branch=True)], ids=["another type", "a branch"])
def test_a_model_that_does_something_else_on_the_gpu_than_where_it_is_captured_is_refused(
    model: nn.Module, tmp_path: Path
) -> None:
    with pytest.raises(stalegrid.ConfigError, match="on the device of the training the stages compute something else"):
        start(tmp_path / "run", "cuda", "processes", model)


def test_a_model_on_the_gpu_is_to_be_given_on_the_cpu(tmp_path: Path) -> None:
    with pytest.raises(stalegrid.ConfigError, match=r"the model is on another device than the CPU .*device: cuda:0"):
        start(tmp_path / "run", "cuda", "simulator", net().cuda())
