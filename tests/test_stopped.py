"""A run that a callback stops ends at one version on every engine, and is repeated to the bit by ending it there."""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.observe.sharing import by_unit
from stalegrid.observe.trace import read_trace
from stalegrid.programs.actions import Kind
from stalegrid.timing.costs import Cost, CostTable
from tests.cases import Net, build, images
from tests.test_metrics import lines, output, same

TIMES = ("seconds", "samples_per_second", "stopped", "shares")


class At(stalegrid.Callback):
    """Asks for the end at a version."""

    def __init__(self, version: int) -> None:
        self.version = version

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> bool:
        return bool(record["version"] >= self.version)


class Drawing(stalegrid.Callback):
    """Draws, computes and changes what it is given."""

    stops = False

    def on_report(self, record: dict[str, Any]) -> None:
        torch.rand(3)
        record.clear()

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> None:
        model.train()(torch.rand(4, 2, 6, 6)).sum().backward()
        record.clear()


class Annealed(stalegrid.Correction):
    """Knows how much is planned, as the correction of pipemare does."""

    def rate(self, update: stalegrid.Update) -> float:
        return 1.0 - update.index / self.site.updates


def one_cycle(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=41, cycle_momentum=False)


def train(out: Path, callbacks: Any = (), engine: str = "simulator", **changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1, momentum=0.9),
        "scheduler": one_cycle,
        "test": images(130),
        "groups": 2,
        "stages": 2,
        "cuts": ["norm2"],
        "mixing": "combine-while-adapt",
        "batch_size": 4,
        "updates": 40,
        "quiet": True,
        "output": output(out),
    }
    return stalegrid.train(build(Net), images(), callbacks=callbacks, engine=engine, **(options | changes))  # type: ignore[arg-type]


def summary(result: stalegrid.Result) -> dict[str, Any]:
    return {name: value for name, value in result.summary.items() if name not in TIMES}


def check_same(one: stalegrid.Result, other: stalegrid.Result) -> None:
    assert same(one.model, other.model)
    assert summary(one) == summary(other)
    assert one.folder is not None
    assert other.folder is not None
    assert lines(one.folder) == lines(other.folder)


WAYS: dict[str, dict[str, Any]] = {
    "a deep pipeline": {"stages": 3, "cuts": ["conv2", "dropout2"], "staleness": [4, 2, 0]},
    "a flush": {"method": "gpipe", "micro_batches": 2, "groups": 1, "mixing": None},
    "one forward, one backward": {"method": "1f1b", "micro_batches": 4, "groups": 1, "mixing": None},
    "micro-batches": {"staleness": [5, 1], "micro_batches": 2},
    "neighbours of before": {"mixing": stalegrid.MixingSettings(kind="adapt-then-combine", period=2, lag=3)},
    "what is pushed": {"groups": 3, "mixing": stalegrid.MixingSettings(kind="push-sum", topology="0>1,1>2,2>0,0>2")},
    "what is tracked": {"mixing": stalegrid.MixingSettings(kind="gradient-tracking", period=2)},
    "all-reduce": {"mixing": "all-reduce"},
    "two forwards": {"method": "features-replay", "groups": 1, "mixing": None},
    "one stage": {"stages": 1, "cuts": [], "staleness": [3]},
}


class Reported(stalegrid.Callback):
    def on_report(self, record: dict[str, Any]) -> bool:
        return bool(record["update"] >= 6)


@pytest.mark.parametrize("way", WAYS)
def test_a_stopped_run_is_repeated_to_the_bit(way: str, tmp_path: Path) -> None:
    stopped = train(tmp_path / "a", [At(6)], **WAYS[way])
    end = stopped.summary["version"]
    assert 6 < end < 40
    assert stopped.summary["stopped"] == {"by": "At", "asked_at": 6, "why": ""}
    check_same(stopped, train(tmp_path / "b", **{**WAYS[way], "updates": end}))


def test_reports_may_end_a_run_that_is_evaluated_at_its_end_alone(tmp_path: Path) -> None:
    told = partial(stalegrid.OutputSettings, log_every=3, evaluate_every=0)
    stopped = train(tmp_path / "a", [Reported()], output=told(folder=tmp_path / "a"))
    end = stopped.summary["version"]
    assert stopped.summary["stopped"] == {"by": "Reported", "asked_at": 6, "why": ""}
    check_same(stopped, train(tmp_path / "b", output=told(folder=tmp_path / "b"), updates=end))


@pytest.mark.parametrize("processes", [4, 2, 1])
def test_it_ends_at_the_same_version_with_the_same_bits_in_processes(processes: int, tmp_path: Path) -> None:
    here = train(tmp_path / "here", [At(6)])
    there = train(tmp_path / "there", [At(6)], engine="processes", processes=processes)
    assert here.summary["stopped"] == there.summary["stopped"]
    check_same(here, there)


SCRIPT = """
import sys
from pathlib import Path
import torch
from tests.test_stopped import At, train

out = Path(sys.argv[1])
result = train(out, [At(6)], engine="processes")
torch.save(result.summary, f"{out}-{torch.distributed.is_initialized()}-{__import__('os').environ['RANK']}")
"""


@pytest.mark.thorough
def test_it_ends_at_the_same_version_with_the_same_bits_under_torchrun(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    root = str(Path(__file__).parents[1])
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    made = subprocess.run(
        [*command, str(tmp_path / "run")], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
    here = train(tmp_path / "here", [At(6)])
    assert lines(tmp_path / "run") == lines(tmp_path / "here")
    saved = load_file(tmp_path / "run" / "model.safetensors")
    assert all(torch.equal(saved[name], value) for name, value in here.model.state_dict().items())
    for rank in range(2):
        told = torch.load(tmp_path / f"run-False-{rank}")
        assert {n: v for n, v in told.items() if n not in TIMES} == summary(here)
        assert told["stopped"] == here.summary["stopped"]


def test_what_knows_how_much_was_planned_is_repeated_by_ending_it_there(tmp_path: Path) -> None:
    changes: dict[str, Any] = {"corrections": [Annealed]}
    stopped = train(tmp_path / "a", [At(6)], **changes)
    until = stalegrid.TrainingSettings(until=stopped.summary["version"])
    again = train(tmp_path / "b", training=until, **changes)
    check_same(stopped, again)
    planned = train(tmp_path / "c", **{**changes, "updates": stopped.summary["version"]})
    assert not same(planned.model, again.model)


def test_a_virtual_run_is_dated_as_if_nobody_watched(tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    CostTable(4, (Cost(forward=2, backward=4, update=1), Cost(forward=3, backward=5, update=1))).write(costs)
    # Groups that do not mix are far apart in time: the fast one does not wait for what is judged of the slow one.
    changes: dict[str, Any] = {
        "devices": stalegrid.DeviceSettings(costs=costs, slow="1,1=5.0"),
        "mixing": stalegrid.MixingSettings(kind="adapt-then-combine", period=6),
        "staleness": [4, 2],
    }
    stopped = train(tmp_path / "a", [At(6)], output=output(tmp_path / "a", trace=True), **changes)
    changes["updates"] = stopped.summary["version"]
    check_same(stopped, train(tmp_path / "b", output=output(tmp_path / "b", trace=True), **changes))
    assert lines(tmp_path / "a")[-1]["virtual_seconds"] > 0
    found, again = (by_unit(read_trace(tmp_path / name / "trace.json")) for name in ("a", "b"))
    trained = {unit: [s for s in spans if s.kind not in (Kind.JUDGE, Kind.HEED)] for unit, spans in found.items()}
    assert trained == again


def test_nothing_that_is_trained_depends_on_callbacks(tmp_path: Path) -> None:
    bare = train(tmp_path / "bare", updates=12)
    for number, callbacks in enumerate(([Drawing()], [At(99)], [At(99), Drawing()])):
        check_same(bare, train(tmp_path / str(number), callbacks, updates=12))
    check_same(bare, train(tmp_path / "there", [At(99), Drawing()], engine="processes", updates=12))


def test_who_asks_too_late_is_not_said_to_have_stopped_anything(tmp_path: Path) -> None:
    found = train(tmp_path / "run", [At(9)], updates=12)
    assert found.summary["version"] == 12
    assert "stopped" not in found.summary


def test_callbacks_end_with_the_summary_and_the_report_says_that_the_run_is_finished(tmp_path: Path) -> None:
    from stalegrid.report import write_report

    train(tmp_path / "run", [At(6), Ending()], engine="processes")
    told = json.loads((tmp_path / "run" / "told.json").read_text())
    assert told == json.loads((tmp_path / "run" / "summary.json").read_text())
    page = write_report(tmp_path / "run").read_text()
    assert "It goes on" not in page
    assert f"Stopped by At at version {told['version']}" in page


class Ending(stalegrid.Callback):
    stops = False

    def on_start(self, folder: Path) -> None:
        self.folder = folder

    def on_end(self, summary: dict[str, Any]) -> None:
        (self.folder / "told.json").write_text(json.dumps(summary))


class Failing(stalegrid.Callback):
    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> None:
        raise KeyError("no such metric")

    def on_end(self, summary: dict[str, Any]) -> None:
        pytest.fail("the run did not end well")


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_callback_that_fails_ends_the_run_with_its_error(engine: str, tmp_path: Path) -> None:
    with pytest.raises(KeyError, match="no such metric"):
        train(tmp_path / "run", [Failing()], engine=engine)


def test_learners_are_not_stopped(tmp_path: Path) -> None:
    changes: dict[str, Any] = {
        **dict.fromkeys(("groups", "stages", "cuts", "mixing", "scheduler")),
        "method": "hardsync",
        "learners": 2,
    }
    with pytest.raises(ConfigError, match="a callback cannot end a run with servers early"):
        train(tmp_path / "a", [At(6)], **changes)
    assert not (tmp_path / "a").exists()
    assert train(tmp_path / "b", [Drawing()], **changes).summary["version"] == 40


def test_a_mixing_of_ones_own_may_know_how_long_a_run_is(tmp_path: Path) -> None:
    class Mine(stalegrid.CombineWhileAdapt):
        def pull(self, gap: Tensor, share: float) -> Tensor:
            return gap * share

    with pytest.raises(ConfigError, match="a mixing of your own may depend on how long a run is"):
        train(tmp_path / "a", [At(6)], mixing=Mine)


def test_an_end_that_is_not_planned_is_refused(tmp_path: Path) -> None:
    for until in (0, 41):
        with pytest.raises(ConfigError, match=rf"within what is planned \(training.until: {until}, updates: 40\)"):
            train(tmp_path / "a", training=stalegrid.TrainingSettings(until=until))


class Copying(stalegrid.Callback):
    stops = False

    def on_start(self, folder: Path) -> None:
        self.folder = folder

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> None:
        torch.save(model.state_dict(), self.folder / f"version-{record['version']}")


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_early_stopping_and_an_average_of_weights(engine: str, tmp_path: Path) -> None:
    callbacks = [stalegrid.EarlyStopping("-test_fixed", patience=2), stalegrid.WeightAverage(0.5), Copying()]
    found = train(tmp_path / "run", callbacks, engine=engine, metrics={"fixed": lambda outputs, targets: 1.0})
    # Evaluations at 3, 6, 9, ...; the second in vain is that of 9.
    assert found.summary["stopped"]["asked_at"] == 9
    assert found.summary["stopped"]["why"] == "test_fixed was best at version 3, evaluations in vain: 2"
    versions = [line["version"] for line in lines(tmp_path / "run") if line["kind"] == "test"]
    first, *rest = [torch.load(tmp_path / "run" / f"version-{version}") for version in versions]
    mean = first["conv1.weight"]
    for state in rest:
        mean = torch.lerp(mean, state["conv1.weight"], 0.5)
    assert torch.equal(load_file(tmp_path / "run" / "model-ema.safetensors")["conv1.weight"], mean)


def test_what_a_callback_needs_is_looked_for_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"asked for: test_recall\); that is: test_loss, test_accuracy"):
        train(tmp_path / "a", [stalegrid.EarlyStopping("test_recall")])
    with pytest.raises(ConfigError, match="the smallest is best"):
        train(tmp_path / "a", [stalegrid.EarlyStopping("test_loss")])
    with pytest.raises(ConfigError, match="WeightAverage writes into the folder of the run, and there is none"):
        train(tmp_path / "a", [stalegrid.WeightAverage()], output=stalegrid.OutputSettings())
