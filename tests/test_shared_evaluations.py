"""Units that measure the model together, held against the observer that measures it alone."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.errors import ConfigError, NonFiniteLoss
from stalegrid.plans.membership import LostGroup, Membership
from stalegrid.runs import execute
from tests.cases import flat
from tests.test_measured_in_stages import Enough, Odd, check_alike, mean_output, settings, task, told


class Noisy(Odd):
    """Draws when it is measured, and counts its forwards where nothing but itself sees it."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += not self.training
        y: Tensor = super().forward(x)
        return y if self.training else y + 0.1 * torch.randn_like(y)


def run(folder: Path, evaluation: str, model: nn.Module | None = None, **changes: Any) -> stalegrid.Result:
    return execute(task(model, metrics={}), settings(folder / evaluation, evaluation, **changes), quiet=True)


@pytest.mark.parametrize(
    ("groups", "stages", "changes"),
    [
        (1, 1, {}),
        (1, 2, {"engine": "processes"}),
        (3, 1, {"mixing": "adapt-then-combine", "period": 2}),
        (1, 3, {"method": "dsp", "queues": [3, 2, 0], "best": "-test_loss"}),
        (2, 3, {"test_batch_size": 5, "precision": "bf16"}),
        pytest.param(3, 2, {"engine": "processes", "processes": 2, "dtype": "float64"}, marks=pytest.mark.thorough),
        pytest.param(2, 1, {"method": "data-parallel", "engine": "processes"}, marks=pytest.mark.thorough),
        pytest.param(2, 2, {"mixing": "gradient-tracking", "period": 2}, marks=pytest.mark.thorough),
        pytest.param(2, 2, {"batch_size": [4, 2]}, marks=pytest.mark.thorough),
    ],
)
def test_units_measure_what_the_observer_does(
    groups: int, stages: int, changes: dict[str, Any], tmp_path: Path
) -> None:
    one, other = (run(tmp_path, e, groups=groups, stages=stages, **changes) for e in ("whole", "shared"))
    check_alike(tmp_path / "whole", tmp_path / "shared")
    assert len([line for line in told(tmp_path / "whole") if line.get("kind") == "test"]) > 1
    assert "evaluation: shared" in (tmp_path / "shared" / "config.yaml").read_text()
    state = one.model.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in other.model.state_dict().items())


def test_a_slice_draws_what_it_draws_for_the_observer(tmp_path: Path) -> None:
    for evaluation in ("whole", "shared"):
        run(tmp_path, evaluation, Noisy(), groups=2)
    check_alike(tmp_path / "whole", tmp_path / "shared")


def test_a_run_that_goes_on_tells_and_saves_the_same(tmp_path: Path) -> None:
    whole, part = tmp_path / "all", tmp_path / "part"
    asked = replace(settings(whole, "shared", 2), checkpoint=stalegrid.CheckpointSettings(every=2, keep=9))
    execute(task(metrics={}), asked, quiet=True)
    shutil.copytree(whole, part)
    save = sorted(path for path in (part / "checkpoints").iterdir() if path.is_dir())[1]
    execute(task(metrics={}), replace(asked, output=replace(asked.output, folder=part)), resume=save, quiet=True)
    check_alike(whole, part)


def test_a_run_that_a_callback_ends_ends_where_it_does(tmp_path: Path) -> None:
    for evaluation in ("whole", "shared"):
        asked = settings(tmp_path / evaluation, evaluation, 1, 3, updates=20)
        execute(task(metrics={}), asked, callbacks=[Enough()], quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "shared")
    assert told(tmp_path / "whole")[-1]["version"] < 20


def test_those_who_are_there_share(tmp_path: Path) -> None:
    lost = Membership((LostGroup(0, 4, "gone"),), ())
    for evaluation in ("whole", "shared"):
        out = tmp_path / evaluation
        asked = replace(settings(out, evaluation, 3), checkpoint=stalegrid.CheckpointSettings(every=2, keep=9))
        execute(task(metrics={}), asked, quiet=True)
        (save,) = (path for path in (out / "checkpoints").iterdir() if path.is_dir() and "4" in path.name)
        execute(task(metrics={}), asked, resume=save, membership=lost, quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "shared")


class Plain(nn.Module):
    """Two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.last(self.first(x))
        return y


def train(model: Any, folder: Path, rate: float) -> stalegrid.Result:
    data = TensorDataset(torch.ones(8, 4), torch.zeros(8, dtype=torch.int64))
    return stalegrid.train(
        model,
        data,
        test=data,
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.SGD, lr=rate),
        updates=4,
        batch_size=4,
        stages=2,
        cuts=["last"],
        engine="simulator",
        evaluation="shared",
        out=folder,
        quiet=True,
    )


def test_a_mean_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss):
        train(Plain(), tmp_path / "out", 1e38)


def test_a_model_that_no_process_has_is_not_shared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none has it here.*evaluation: whole"):
        train(lambda: Plain(), tmp_path / "out", 0.1)


@pytest.mark.parametrize(
    ("changes", "metrics", "message"),
    [
        ({}, {"mean_output": mean_output}, r"metrics: mean_output.*evaluation: whole"),
        ({"js_distance": True, "groups": 2}, {}, r"js_distance: true.*evaluation: whole"),
        ({"method": "hardsync"}, {}, r"learners have the whole model.*output.evaluation: shared"),
    ],
)
def test_what_units_cannot_share_is_refused(
    changes: dict[str, Any], metrics: dict[str, Any], message: str, tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    asked = (
        flat(stalegrid.Settings, folder=folder, updates=4, batch_size=4, evaluation="shared", **changes)
        if "method" in changes
        else settings(folder, "shared", **changes)
    )
    with pytest.raises(ConfigError, match=message):
        execute(task(metrics=metrics), asked, quiet=True)
    assert not folder.exists()
