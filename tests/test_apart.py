"""How far groups are apart in what they predict, measured while a run goes on, held against its units' parameters."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.observe import METRICS
from stalegrid.runs import execute
from stalegrid.studies.verifying import read_outcome
from tests import cases
from tests.observe.test_divergence import lin
from tests.test_stopped import check_same


def settings_of(folder: Path, groups: int = 3, stages: int = 2, **changes: Any) -> Any:
    options = {"method": "pham-ahn", "js_distance": True, "engine": "simulator", "split": "shards=1", "loggers": []}
    return cases.make_settings(groups, stages, folder=folder, evaluate_every=0.5, **(options | changes))


def task_of(**changes: Any) -> Any:
    return cases.make_task(**({"test": cases.images(29)} | changes))


def distances(folder: Path) -> list[float]:
    records = map(json.loads, (folder / METRICS).read_text().splitlines())
    return [record["js_distance"] for record in records if record["kind"] == "test"]


@pytest.mark.parametrize("changes", [{}, {"batch_size": [4, 2, 6], "split": "even"}], ids=str)
def test_it_is_that_of_the_groups_own_models(changes: dict[str, Any], tmp_path: Path) -> None:
    task, settings = task_of(), settings_of(tmp_path / "run", test_batch_size=8, **changes)
    execute(task, settings, quiet=True, keep_units=True)
    outcome = read_outcome(tmp_path / "run", cases.make_plan(task, settings))
    inputs, scores = cases.images(29).tensors[0], []
    for s in range(3):
        model = cases.build(cases.Net).eval()
        state = model.state_dict()
        for (group, name), value in outcome.parameters.items():
            if group == s:
                state[name].copy_(value)
        with torch.no_grad():
            scores.append(model(inputs))
    sizes = settings.training.sizes(3)
    found = distances(tmp_path / "run")
    assert found[-1] == pytest.approx(lin(scores, list(map(float, sizes))), rel=1e-5)  # slices of eight round otherwise
    assert found[-1] > 1e-4


def test_engines_measure_the_same_and_nothing_else_is_another(tmp_path: Path) -> None:
    here = execute(task_of(), settings_of(tmp_path / "here"), quiet=True)
    there = execute(task_of(), settings_of(tmp_path / "there", engine="processes"), quiet=True)
    assert distances(tmp_path / "here") == distances(tmp_path / "there")
    check_same(here, there)
    without = execute(task_of(), settings_of(tmp_path / "without", js_distance=False), quiet=True)
    assert "js_distance" not in without.summary
    assert without.summary["test_loss"] == here.summary["test_loss"]
    assert without.summary["consensus_distance"] == here.summary["consensus_distance"]
    assert here.summary["js_distance"] == distances(tmp_path / "here")[-1]


class Noisy(nn.Module):
    """Draws where it is measured too, and changes its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cases.Net()

    def forward(self, x: Any) -> Any:
        return self.net(x.add_(torch.rand(()) * self.net.fc2.bias.sum()))


def test_a_model_that_draws_and_writes_into_its_inputs_measures_the_same_beside_it(tmp_path: Path) -> None:
    losses = []
    for asked in (True, False):
        settings = settings_of(tmp_path / str(asked), js_distance=asked, stages=1, cuts=None)
        found = execute(task_of(model=cases.build(Noisy)), settings, quiet=True)
        losses.append(found.summary["test_loss"])
    assert losses[0] == losses[1]


def test_groups_that_are_alike_are_not_apart(tmp_path: Path) -> None:
    execute(task_of(), settings_of(tmp_path / "run", mixing=stalegrid.MixingSettings(kind="all-reduce")), quiet=True)
    model = cases.build(lambda: cases.Net(plain=True))
    options = {"mixing": stalegrid.MixingSettings(kind="all-reduce"), "cuts": ["relu"]}
    execute(task_of(model=model), settings_of(tmp_path / "plain", **options), quiet=True)
    assert set(distances(tmp_path / "plain")) == {0.0}
    assert distances(tmp_path / "run")[-1] > 0  # statistics of batch normalisation are the groups' own
    execute(task_of(), settings_of(tmp_path / "one", groups=1), quiet=True)
    assert set(distances(tmp_path / "one")) == {0.0}


def test_it_is_where_people_look(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from stalegrid.observe.scalars import scalars
    from stalegrid.report.report import write_report

    execute(task_of(), settings_of(tmp_path / "run"), quiet=True)
    write_report(tmp_path / "run")
    assert "Jensen-Shannon distance over epochs" in (tmp_path / "run" / "report.html").read_text()
    (last,) = [json.loads(line) for line in (tmp_path / "run" / METRICS).read_text().splitlines()][-1:]
    assert scalars(last)["test/js_distance"] == distances(tmp_path / "run")[-1]


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "no test data": ({}, {"test": None}, "measured on test data, and there is none"),
    "no classes": (
        {"split": "even"},
        {
            "loss": nn.MSELoss(),
            "data": torch.utils.data.TensorDataset(torch.randn(50, 2, 6, 6), torch.randn(50, 3)),
            "test": torch.utils.data.TensorDataset(torch.randn(50, 2, 6, 6), torch.randn(50, 3)),
        },
        r"no scores of classes.*outputs: float32 \(50, 3\), targets: float32 \(50, 3\)\)",
    ),
    "stages": ({"evaluation": "pipeline"}, {}, "stages measure the mean of groups alone"),
    "learners": ({"method": "hardsync", "groups": None, "stages": None, "cuts": None}, {}, "no models of their own"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_anything_starts(name: str, tmp_path: Path) -> None:
    options, task, text = REFUSED[name]
    settings = settings_of(tmp_path / "run")
    with pytest.raises(ConfigError, match=text):
        execute(task_of(**task), cases.changed(settings, **options), quiet=True)
    assert not (tmp_path / "run").exists()
