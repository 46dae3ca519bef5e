"""Metrics of a whole run: the same on every engine, told everywhere, and without a trace in what is trained."""

import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import stalegrid
from tests.cases import Net, build, images

TIMES = ("seconds", "samples_per_second")


def margin(outputs: Tensor, targets: Tensor) -> Tensor:
    two = outputs.topk(2).values
    return (two[:, 0] - two[:, 1]).mean()


def drawing(outputs: Tensor, targets: Tensor) -> Tensor:
    return torch.rand(())


def train(**changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "test": images(300),
        "groups": 2,
        "stages": 2,
        "cuts": ["norm2"],
        "mixing": "combine-while-adapt",
        "batch_size": 4,
        "updates": 12,
        "engine": "simulator",
        "quiet": True,
    }
    return stalegrid.train(build(Net), images(), **(options | changes))


def lines(folder: Path) -> list[dict[str, Any]]:
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in record.items() if name not in TIMES} for record in records]


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def output(folder: Path, **more: Any) -> stalegrid.OutputSettings:
    return stalegrid.OutputSettings(folder=folder, log_every=3, evaluate_every=0.5, **more)


def test_what_is_trained_does_not_depend_on_metrics(tmp_path: Path) -> None:
    without = train(output=output(tmp_path / "a"))
    metrics = {"margin": margin, "drawing": drawing}
    found = train(output=output(tmp_path / "b"), metrics=metrics)
    assert same(without.model, found.model)
    told = [{n: v for n, v in line.items() if n.removeprefix("test_") not in metrics} for line in lines(tmp_path / "b")]
    assert told == lines(tmp_path / "a")
    tests = [line for line in lines(tmp_path / "b") if line["kind"] == "test"]
    assert len(tests) == 4
    assert all(line["test_margin"] > 0 for line in tests)
    assert found.summary["test_margin"] == tests[-1]["test_margin"]


def test_metrics_are_the_same_in_processes_also_those_that_know_of_processes(tmp_path: Path) -> None:
    torchmetrics = pytest.importorskip("torchmetrics")
    metrics = {"margin": margin, "drawing": drawing, "f1": torchmetrics.F1Score("multiclass", num_classes=3)}
    best = {"best": "test_f1"}
    here = train(output=output(tmp_path / "here", **best), metrics=metrics)
    there = train(output=output(tmp_path / "there", **best), metrics=metrics, engine="processes")
    assert lines(tmp_path / "here") == lines(tmp_path / "there")
    assert here.best is not None
    assert there.best is not None
    assert same(here.model, there.model)
    assert same(here.best, there.best)
    assert here.summary["best"] == there.summary["best"]


def test_the_best_model_is_that_of_its_version(tmp_path: Path) -> None:
    found = train(output=output(tmp_path / "run", best="-test_margin"), metrics={"margin": margin})
    tests = [line for line in lines(tmp_path / "run") if line["kind"] == "test"]
    least = min(tests, key=lambda line: line["test_margin"])
    assert found.summary["best"] == {"version": least["version"], "test_margin": least["test_margin"]}
    assert found.best is not None
    state = load_file(tmp_path / "run" / "model-best.safetensors")
    assert all(torch.equal(state[name], value) for name, value in found.best.state_dict().items())
    with torch.no_grad():
        x, y = images(300)[:]
        # In slices, as it was measured: another batch may sum in another order.
        parts = [(margin(found.best(x[i : i + 125]), y), len(x[i : i + 125])) for i in range(0, 300, 125)]
    assert sum(float(value) * size for value, size in parts) / 300 == least["test_margin"]


def test_without_a_folder_the_best_model_is_there_too() -> None:
    settings = stalegrid.OutputSettings(evaluate_every=0.5, best="test_accuracy")
    found = train(output=settings)
    assert found.best is not None
    assert not found.best.training
    assert train().best is None


def test_learners_are_measured_too(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"groups": None, "stages": None, "cuts": None, "mixing": None, "method": "hardsync"}
    settings = output(tmp_path / "run", best="test_margin")
    found = train(metrics={"margin": margin}, output=settings, learners=2, **changes)
    assert found.summary["best"]["test_margin"] >= found.summary["test_margin"] > 0


def test_the_console_and_the_report_tell_metrics(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from stalegrid.report import write_report

    train(output=output(tmp_path / "run"), metrics={"margin": margin, "hole": partial(holed, seen=[])}, quiet=False)
    told = capsys.readouterr().out
    assert "test margin 0." in told
    assert "nan" not in told
    page = write_report(tmp_path / "run").read_text()
    assert "Test margin over epochs" in page
    assert "nan" not in page.lower().replace("governance", "")


def holed(outputs: Tensor, targets: Tensor, seen: list[int]) -> float:
    seen.append(1)
    return float("nan") if len(seen) > 1 else 1.0
