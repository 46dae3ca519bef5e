"""Stages that are compiled: every engine has the same bits, and those of loops that are compiled alike."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import stalegrid
from stalegrid.data.batches import Batches
from stalegrid.observe import METRICS
from stalegrid.stages.compiled import Compiled
from stalegrid.studies.verifying import verify
from tests import tied
from tests.cases import build, images, make_settings, make_task, record_simulator
from tests.test_precision import check_same, sgd
from tests.test_resumed_grids import copied

pytestmark = [pytest.mark.thorough, pytest.mark.usefixtures("compiler")]

UPDATES, BATCH = 8, 8
ROOT = Path(__file__).parents[1]
LATE: dict[str, Any] = {"method": "pipedream", "stages": 2, "cuts": ["3"], "staleness": [2, 0]}


def layers() -> nn.Sequential:
    """Return layers of which nothing is drawn."""
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 16), nn.BatchNorm1d(16), nn.Tanh(), nn.Linear(16, 3))


def plain(model: nn.Module, call: Callable[[torch.Tensor], Any]) -> tuple[nn.Module, list[float]]:
    """Train in a plain loop."""
    batches, losses, step = Batches(images(), groups=1, batch_size=BATCH, seed=5), [], sgd(model.parameters())
    for n in range(UPDATES):
        loss = F.cross_entropy(call(*batches.inputs(0, n)), batches.targets(0, n))
        loss.backward()
        step.step()
        step.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def drawing() -> nn.Sequential:
    """Return the same with something drawn."""
    return nn.Sequential(*layers()[:4], nn.Dropout(0.25), nn.Linear(16, 3))


def run(folder: Path, **options: Any) -> stalegrid.Result:
    common: dict[str, Any] = {
        "batch_size": BATCH,
        "updates": UPDATES,
        "seed": 5,
        "engine": "simulator",
        "compile": True,
    }
    output = stalegrid.OutputSettings(folder=folder / "run", log_every=1)
    loss = nn.CrossEntropyLoss()
    return stalegrid.train(
        build(layers), images(), loss=loss, optimizer=sgd, quiet=True, output=output, **(common | options)
    )


def trained(folder: Path, **options: Any) -> tuple[nn.Module, list[float]]:
    result = run(folder, **options)
    assert result.folder is not None
    assert "compile: true" in (result.folder / "config.yaml").read_text()
    return result.model, losses(result.folder)


def losses(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    return [line["loss"] for line in lines if line["kind"] == "train"]


def test_one_stage_is_the_plain_loop_of_the_model_that_is_compiled(tmp_path: Path) -> None:
    """With torch's own call, and the options under which it draws what it draws without a compiler."""
    model = build(layers).train()
    own = torch.compile(model, fullgraph=True, dynamic=False, options={"fallback_random": True, "compile_threads": 1})
    check_same(trained(tmp_path, method="sgd"), plain(model, own))


def test_two_stages_in_time_are_the_plain_loop_of_two_parts_that_are_compiled(tmp_path: Path) -> None:
    model = build(layers).train()
    assert isinstance(model, nn.Sequential)
    parts = Compiled(model[:3], None), Compiled(model[3:], None)

    def both(x: torch.Tensor) -> Any:
        below = parts[0]((x,))
        crossing = below.detach().requires_grad_()
        crossing.register_hook(lambda gradient: below.backward(gradient))
        return parts[1]((crossing,))

    check_same(trained(tmp_path, method="pipedream", stages=2, cuts=["3"], staleness=[0, 0]), plain(model, both))


def test_processes_compute_what_the_simulator_does() -> None:
    """With what is drawn, and two forwards, in a lower precision."""
    options: dict[str, Any] = {"view": "recomputed", "precision": "bf16", "cuts": ["3"], "compile": True}
    (difference,) = verify(make_task(model=build(drawing)), make_settings(1, 2, **options))
    assert difference.equal, difference


SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.test_compiled import LATE, run

if __name__ == "__main__":
    result = run(Path(sys.argv[1]), engine="processes", **LATE)
    torch.save(result.model.state_dict(), Path(sys.argv[1]) / "model")
"""


def test_processes_of_torchrun_do_so_too(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    script = [str(tmp_path / "script.py"), str(tmp_path / "there")]
    (tmp_path / "there").mkdir()
    made = subprocess.run(torchrun + script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=280)
    assert made.returncode == 0, made.stderr[-4000:]
    expected, found = run(tmp_path, **LATE).model.state_dict(), torch.load(tmp_path / "there" / "model")
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    one, other = (losses(folder / "run") for folder in (tmp_path, tmp_path / "there"))
    assert len(one) == UPDATES
    assert one == other


def test_it_is_what_is_computed_without_a_compiler_but_for_rounding() -> None:
    options: dict[str, Any] = {**LATE, "batch_size": BATCH}
    settings = (make_settings(1, compile=compiles, **options) for compiles in (True, False))
    one, other = (record_simulator(make_task(model=build(layers)), chosen) for chosen in settings)
    for found, expected in zip(one.records, other.records, strict=True):
        assert found["group_loss"] == pytest.approx(expected["group_loss"], rel=1e-4)
    for key, value in one.values[-1].items():
        torch.testing.assert_close(value, other.values[-1][key], rtol=1e-3, atol=1e-4)
    assert any(not torch.equal(value, other.values[-1][key]) for key, value in one.values[-1].items())


def test_the_model_that_is_measured_is_not_compiled(tmp_path: Path) -> None:
    test = images(13)
    inputs, targets = (torch.stack(parts) for parts in zip(*test, strict=True))
    result = run(tmp_path, method="sgd", test=test)
    with torch.no_grad():
        assert result.summary["test_loss"] == float(F.cross_entropy(result.model.eval()(inputs), targets))


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    """Graphs of batches in flight are made again by what is compiled again."""
    checkpoints = stalegrid.CheckpointSettings(every=4, keep=9)
    whole = run(tmp_path, checkpoint=checkpoints, **LATE)
    with copied(tmp_path / "run", 4) as source:
        again = run(source.parent.parent.parent, checkpoint=checkpoints, resume=source, **LATE)
        for (name, one), other in zip(whole.model.state_dict().items(), again.model.state_dict().values(), strict=True):
            assert torch.equal(one, other), name
    with copied(tmp_path / "run", 4) as source, pytest.raises(stalegrid.ConfigError, match=r"training.compile: "):
        run(source.parent.parent.parent, checkpoint=checkpoints, resume=source, **LATE, compile=False)


class Tied(nn.Module):
    """An embedding that is the head too."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(tied.WORDS, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(self.middle(self.embedding(x).mean(1)).tanh(), self.embedding.weight)


def test_tied_weights_and_a_last_batch_of_fewer_samples() -> None:
    few = torch.utils.data.Subset(tied.sentences(), range(6))
    task = make_task(model=build(Tied), data=few, scheduler=None)
    options: dict[str, Any] = {"cuts": ["middle"], "staleness": [2, 0], "drop_last": False}
    one, other = (record_simulator(task, make_settings(1, 2, compile=c, **options)) for c in (True, False))
    for found, expected in zip(one.records, other.records, strict=True):
        assert found["group_loss"] == pytest.approx(expected["group_loss"], rel=1e-4)
