"""Runs that are diagnosed: on every engine, through checkpoints, and what is trained all the same."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from stalegrid import CheckpointSettings
from stalegrid.errors import ConfigError, NonFiniteLoss
from stalegrid.observe import METRICS
from stalegrid.observe.scalars import scalars
from stalegrid.runs import execute
from tests import cases
from tests.diagnosis.quadratics import unlimited
from tests.test_stopped import same


def settings_of(folder: Path | None, groups: int = 2, stages: int = 2, **changes: Any) -> Any:
    options = {"method": "pham-ahn", "diagnose": 3, "engine": "simulator", "loggers": [], "evaluate_every": 0.5}
    return cases.make_settings(groups, stages, folder=folder, **(options | changes))


def smooth() -> nn.Module:
    return cases.build(lambda: cases.Net(plain=True))


def diagnoses(folder: Path) -> list[dict[str, Any]]:
    records = map(json.loads, (folder / METRICS).read_text().splitlines())
    return [{n: v for n, v in r.items() if n != "seconds"} for r in records if r["kind"] == "diagnosis"]


@pytest.mark.parametrize("plain", [False, True])
def test_engines_diagnose_alike_and_train_the_same_as_if_nobody_did(plain: bool, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": smooth(), "test": cases.images(20)} if plain else {}
    more = {"cuts": ["relu"], "mixing": "adapt-then-combine", "updates": 7} if plain else {"updates": 5}
    runs = {
        name: execute(cases.make_task(**given), settings_of(tmp_path / name, **(more | options)), quiet=True)
        for name, options in (
            ("here", {}),
            ("there", {"engine": "processes"}),
            ("without", {"diagnose": 0}),
        )
    }
    found = diagnoses(tmp_path / "here")
    assert [record["version"] for record in found] == ([3, 6] if plain else [3])
    assert found == diagnoses(tmp_path / "there")
    assert not diagnoses(tmp_path / "without")
    assert same(runs["here"].model, runs["without"].model)
    assert same(runs["here"].model, runs["there"].model)
    last = {"kind": "diagnosis", **runs["here"].summary["diagnosis"]}
    assert last == found[-1]
    for record in found:
        assert (record["noise"]["bound"] is None) == (not plain)  # whose batches are normalised
        assert record["stages"][0]["error"] > 0
        assert record["consensus"]["distance"] <= record["consensus"]["after_update"] * (1 + 1e-6)


@patch("stalegrid.diagnosis.diagnosis.limits_at", unlimited)
def test_units_that_share_an_evaluation_show_themselves_too(tmp_path: Path) -> None:
    for name in ("whole", "shared"):
        task = cases.make_task(model=smooth(), test=cases.images(20))
        execute(task, settings_of(tmp_path / name, cuts=["relu"], updates=7, evaluation=name), quiet=True)
    found = diagnoses(tmp_path / "shared")
    assert [record["version"] for record in found] == [3, 6]
    assert found == diagnoses(tmp_path / "whole")


@patch("stalegrid.diagnosis.diagnosis.limits_at", unlimited)
def test_it_is_diagnosed_alike_from_checkpoints_on(tmp_path: Path) -> None:
    whole = tmp_path / "whole"
    settings = settings_of(whole, staleness=[3, 1], diagnose=4, updates=9, checkpoint=_every())
    execute(_task(), settings, quiet=True)
    found = diagnoses(whole)
    assert [record["version"] for record in found] == [4, 8]
    assert found[-1]["stages"][0]["gap"] is not None
    for version in (2, 3, 6):  # before and after what is shown beforehand, and between two diagnoses
        part = tmp_path / "part"
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(whole, part)
        (save,) = [path for path in (part / "checkpoints").iterdir() if path.name.endswith(f"{version}")]
        again = cases.changed(settings, folder=part)
        resumed = execute(_task(), again, resume=save, quiet=True)
        assert diagnoses(part) == found, f"from version {version}"
        assert resumed.summary["diagnosis"] == {n: v for n, v in found[-1].items() if n != "kind"}


def _task() -> Any:
    return cases.make_task(scheduler=None)


def _every() -> Any:
    return CheckpointSettings(every=1, keep=9)


@pytest.mark.parametrize(
    "changes",
    [
        {"micro_batches": 2, "staleness": [5, 1], "groups": 2, "mixing": "all-reduce"},
        {"view": "recomputed", "staleness": [1, 1]},
        *(
            pytest.param(changes, marks=pytest.mark.thorough)
            for changes in (
                {"method": "gpipe", "micro_batches": 2},
                {"method": "pipedream-2bw", "micro_batches": 2},
                {"optimizer_": "adam"},
                {"drop_last": False, "batch_size": 8},
            )
        ),
    ],
    ids=str,
)
def test_any_grid_may_be_diagnosed(changes: dict[str, Any], tmp_path: Path) -> None:
    changes = dict(changes)
    more = {"optimizer": lambda p: torch.optim.Adam(p, lr=0.01)} if changes.pop("optimizer_", None) else {}
    task = cases.make_task(test=cases.images(20), scheduler=None, **more)
    execute(task, settings_of(tmp_path / "run", **({"groups": 1, "updates": 5} | changes)), quiet=True)
    (found,) = diagnoses(tmp_path / "run")
    assert found["version"] == 3
    assert found["gradient_square"] > 0
    assert found["noise"]["measured"] > 0
    assert len(found["stages"]) == 2


def test_the_limit_of_the_run_is_that_of_a_stage_that_trains_alone(tmp_path: Path) -> None:
    model = smooth()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith("conv1"))
    task = cases.make_task(model=model, scheduler=None)
    execute(task, settings_of(tmp_path / "run", groups=1, cuts=["relu"], staleness=[1, 0], updates=3), quiet=True)
    (found,) = diagnoses(tmp_path / "run")
    assert found["stages"][1]["rate_limit"] is None
    assert found["rate_limit"] == found["stages"][0]["rate_limit"] > 0
    assert found["rate_limit_why"] == ""


def test_why_all_stages_together_have_no_limit_is_told(tmp_path: Path) -> None:
    task = cases.make_task(model=smooth(), scheduler=None)
    given = settings_of(tmp_path / "run", groups=1, cuts=["relu"], corrections=["shrink=0.5"], updates=3)
    execute(task, given, quiet=True)
    (found,) = diagnoses(tmp_path / "run")
    assert found["stages"][0]["rate_limit"] > 0
    assert found["rate_limit"] is None
    assert found["rate_limit_why"] == "not known where corrections scale stages unlike"


def test_nothing_is_late_where_nothing_is_stale(tmp_path: Path) -> None:
    execute(_task(), settings_of(tmp_path / "run", groups=1, staleness=[0, 0], updates=3), quiet=True)
    for record in diagnoses(tmp_path / "run"):
        assert record["used"]
        assert [(s["error"], s["gap"], s["bound"]) for s in record["stages"]] == [(0.0, 0.0, 0.0)] * 2


@patch("stalegrid.diagnosis.diagnosis.limits_at", unlimited)
def test_the_average_is_weighed_by_the_rates_of_the_schedule(tmp_path: Path) -> None:
    execute(cases.make_task(), settings_of(tmp_path / "run", diagnose=2), quiet=True)
    found = diagnoses(tmp_path / "run")
    rates = [record["rate"] for record in found]
    assert len(set(rates)) == 4
    squares = [record["gradient_square"] for record in found]
    mean = sum(r * s for r, s in zip(rates, squares, strict=True)) / sum(rates)
    assert found[-1]["gradient_square_average"] == pytest.approx(mean)


def test_it_is_drawn_by_loggers_and_told_on_the_console(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    execute(cases.make_task(model=smooth()), settings_of(tmp_path / "run", cuts=["relu"], updates=3))
    said = [line for line in capfd.readouterr().out.splitlines() if line.startswith("diagnosis at version 3")]
    assert len(said) == 1
    assert "consensus distance" in said[0]
    assert " (bound " in said[0]
    drawn = scalars(diagnoses(tmp_path / "run")[-1])
    assert 0 < drawn["diagnosis/stage 0/error"] < drawn["diagnosis/stage 0/bound"]
    assert drawn["diagnosis/noise/predicted"] <= drawn["diagnosis/noise/bound"]
    assert not [name for name, value in drawn.items() if isinstance(value, bool)]


def test_a_gradient_that_is_not_finite_ends_the_run(tmp_path: Path) -> None:
    task = cases.make_task(optimizer=lambda p: torch.optim.SGD(p, lr=1e30), scheduler=None)
    with pytest.raises(NonFiniteLoss):
        execute(task, settings_of(tmp_path / "run", diagnose=1, evaluate_every=0.0), quiet=True)


class Alone(nn.Module):
    """Takes no batch of one sample."""

    def __init__(self) -> None:
        super().__init__()
        self.net = cases.Net(plain=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert len(x) > 1, "one sample"
        made: torch.Tensor = self.net(x)
        return made


REFUSED: dict[str, tuple[dict[str, Any], dict[str, Any], str]] = {
    "never": ({"diagnose": 9}, {}, r"ends before a version is diagnosed \(output.diagnose: 9, updates: 8\)"),
    "backwards": ({"diagnose": -1}, {}, r"0 for none \(output.diagnose: -1\)"),
    "learners": (
        {"method": "hardsync", "groups": None, "stages": None, "cuts": None},
        {},
        r"a grid, whose staleness is known beforehand \(method: hardsync, output.diagnose: 3\)",
    ),
    "stages": ({"evaluation": "pipeline"}, {}, r"made of the whole model \(output.diagnose: 3\)"),
    "lost groups": ({"on_loss": "continue", "engine": "processes"}, {}, "nor what groups add that are left"),
    "samples": ({"stages": 1, "cuts": None}, {"model": Alone()}, "does not take one by itself"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused_before_anything_starts(name: str, tmp_path: Path) -> None:
    options, task, text = REFUSED[name]
    if name == "lost groups":
        options = options | {"checkpoint": _every()}
    with pytest.raises(ConfigError, match=text):
        execute(cases.make_task(**task), cases.changed(settings_of(tmp_path / "run"), **options), quiet=True)
    assert not (tmp_path / "run").exists()


class Stream(torch.utils.data.IterableDataset[Any]):
    def __iter__(self) -> Any:
        return iter(TensorDataset(*cases.images(200).tensors))


def test_streams_are_diagnosed_on_what_they_begin_with(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "run", groups=1, cuts=["relu"], updates=3)
    execute(cases.make_task(data=Stream(), model=smooth()), settings, quiet=True)
    (found,) = diagnoses(tmp_path / "run")
    assert found["noise"]["bound"] > 0
