"""A recorded run once more: the same bits, or what is wrong with the record."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.cli import main
from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.observe.folder import MODEL, SUMMARY
from stalegrid.plans.task import Task
from stalegrid.programs.deliveries import DELIVERIES
from stalegrid.recipes.settings import RunConfig
from stalegrid.report.told import read_summary
from stalegrid.runs import execute
from stalegrid.studies.replaying import Replayed, recorded_config, replay
from stalegrid.timing.costs import Cost, CostTable
from tests.cases import Net, build, changed, flat, make_settings, make_task

UPDATES = 8
EQUAL = Replayed(UPDATES, 0.0, True)
QUICK = ["--engine", "simulator", "--updates", "6", "--batch-size", "8", "--devices.jitter", "0.3"]
Said = pytest.CaptureFixture[str]


def settings_of(folder: Path, method: str, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "learners": 3,
        "batch_size": 4,
        "updates": UPDATES,
        "log_every": 2,
        "evaluate_every": 0.0,
        "seed": 3,
        "engine": "simulator",
        "jitter": 0.3,
        "out": folder,
    }
    return flat(Settings, method=method, **(defaults | changes))


def lines_of(folder: Path) -> list[str]:
    return (folder / DELIVERIES).read_text().splitlines(keepends=True)


def write(folder: Path, lines: list[str]) -> None:
    (folder / DELIVERIES).write_text("".join(lines))


def swap(folder: Path, which: Callable[[list[dict[str, int]], int], bool]) -> None:
    """Let the learners of two neighbouring lines change places: the first two for which that is wanted."""
    entries = [json.loads(line) for line in lines_of(folder)]
    at = next(k for k in range(len(entries) - 1) if which(entries, k))
    one, other = entries[at], entries[at + 1]
    one["learner"], other["learner"] = other["learner"], one["learner"]
    write(folder, [json.dumps(entry) + "\n" for entry in entries])


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("softsync", {"softsync": 3, "servers": 2}),
        ("softsync", {"softsync": 1, "momentum_at": "learner"}),
        ("asgd", {"rule": "dc=0.5"}),
        ("asgd", {"corrections": ["gap-aware"], "clip": 0.5, "servers": 3}),
        ("asgd", {"max_staleness": 1, "jitter": 1.0}),
        ("hardsync", {"jitter": 0.0}),
        ("softsync", {"dtype": "float64"}),
    ],
    ids=str,
)
def test_a_replay_has_the_same_bits(method: str, changes: dict[str, Any], tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "run", method, **changes)
    steady = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    task = make_task(scheduler=steady)
    execute(task, settings, quiet=True)
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()}
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir() if path.is_file()} == before


def test_a_replay_needs_nothing_of_the_devices_of_the_run(tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    CostTable(4, (Cost(forward=1.0, backward=3.0, update=0.5, mix=0.25),)).write(costs)
    elsewhere: dict[str, Any] = {
        "costs": costs,
        "slow": "1=3",
        "stalls": [0.1, 5.0],
        "link": [1.0, 100.0],
        "outages": "0@10-20",
        "trace": True,
        "processes": 17,
        "loggers": ["tensorboard"],  # into the folder of the run, which a replay has none of
    }
    settings, task = settings_of(tmp_path / "run", "softsync", softsync=3, **elsewhere), make_task()
    result = execute(task, settings, quiet=True)
    assert "virtual_seconds" in result.summary
    costs.unlink()
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL


def test_a_replay_of_another_task_has_other_bits(tmp_path: Path) -> None:
    settings, task = settings_of(tmp_path / "run", "asgd"), make_task()
    execute(task, settings, quiet=True)
    for other in (
        replay(task, changed(settings, seed=4), tmp_path / "run", quiet=True),
        replay(make_task(scheduler=None), settings, tmp_path / "run", quiet=True),
        replay(task, changed(settings, rule="inverse"), tmp_path / "run", quiet=True),
    ):
        assert (other.version, other.equal) == (UPDATES, False)
        assert other.difference > 0
    moved = make_task()
    with torch.no_grad():
        moved.model.fc2.bias[0] += 1e-6
    found = replay(moved, settings, tmp_path / "run", quiet=True)
    assert not found.equal
    assert 0 < found.difference < 1e-2


def test_one_bit_of_one_parameter_is_seen(tmp_path: Path) -> None:
    from safetensors.torch import load_file, save_file

    settings, task = settings_of(tmp_path / "run", "softsync"), make_task()
    execute(task, settings, quiet=True)
    state = load_file(tmp_path / "run" / MODEL)
    for name in state:
        changed = {key: tensor.clone() for key, tensor in state.items()}
        flat = changed[name].view(-1)
        flat[-1] = torch.nextafter(flat[-1], flat[-1] + 1) if flat.is_floating_point() else flat[-1] + 1
        save_file(changed, tmp_path / "run" / MODEL)
        found = replay(task, settings, tmp_path / "run", quiet=True)
        assert not found.equal, name
        assert found.difference == float((changed[name].double() - state[name].double()).abs().max()) > 0


def test_two_learners_that_changed_places_where_it_matters_are_seen(tmp_path: Path) -> None:
    settings, task = settings_of(tmp_path / "run", "asgd"), make_task()
    execute(task, settings, quiet=True)
    # Both compute on version 0, so either may come first.
    swap(tmp_path / "run", lambda entries, k: entries[k]["version"] == entries[k + 1]["version"] == 0)
    found = replay(task, settings, tmp_path / "run", quiet=True)
    assert (found.version, found.equal) == (UPDATES, False)
    assert found.difference > 1e-6


def test_two_learners_in_step_that_changed_places_are_the_same_sum(tmp_path: Path) -> None:
    settings, task = settings_of(tmp_path / "run", "hardsync", learners=2, jitter=0.0), make_task()
    execute(task, settings, quiet=True)
    swap(tmp_path / "run", lambda entries, k: k == 4)
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL


class Unplugged(Exception):
    """The run ends at once."""


class Plugged:
    """A loss that cannot be had any more after so many batches of all learners, who share one plug."""

    def __init__(self, after: int) -> None:
        self.left = after

    def __deepcopy__(self, memo: object) -> "Plugged":
        return self

    def __call__(self, outputs: Tensor, target: Tensor) -> Tensor:
        self.left -= 1
        if self.left < 0:
            raise Unplugged
        return nn.functional.cross_entropy(outputs, target)


def interrupted(folder: Path, batches: int, method: str = "softsync", **changes: Any) -> tuple[Task, Settings]:
    """Run until the plug is pulled; the model is written at every third version.  Return what was run."""
    usual = {"softsync": 3, "evaluate_every": 0.25, "updates": 12}
    settings = settings_of(folder, method, **{**usual, **changes})
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=12)
    with pytest.raises(Unplugged):
        execute(make_task(loss=Plugged(batches + 1), scheduler=cycle), settings, quiet=True)
    return make_task(scheduler=cycle), settings


@pytest.mark.parametrize("half", ["", "{", '{"learner": 1, "batch": 3, "version": 2, "clock": 7}', "\0\0\0"])
def test_a_run_that_was_interrupted_is_repeated_up_to_its_last_model(half: str, tmp_path: Path) -> None:
    task, settings = interrupted(tmp_path / "run", 7)
    lines = lines_of(tmp_path / "run")
    assert read_summary(tmp_path / "run")["version"] == 3 < len(lines) < UPDATES
    write(tmp_path / "run", [*lines, half])
    assert replay(task, settings, tmp_path / "run", quiet=True) == Replayed(3, 0.0, True)
    write(tmp_path / "run", lines[:3])
    assert replay(task, settings, tmp_path / "run", quiet=True) == Replayed(3, 0.0, True)
    write(tmp_path / "run", [*lines[:2], lines[2].rstrip("\n")])
    with pytest.raises(ConfigError, match=r"fewer updates than the model has \(deliveries: .*run.*, updates: 3\)"):
        replay(task, settings, tmp_path / "run", quiet=True)


def test_a_run_whose_corrections_depend_on_its_length_may_be_interrupted_too(tmp_path: Path) -> None:
    task, settings = interrupted(tmp_path / "run", 10, corrections=["pipemare-rate"], jitter=1.0)
    assert replay(task, settings, tmp_path / "run", quiet=True) == Replayed(6, 0.0, True)


def test_several_gradients_make_an_update(tmp_path: Path) -> None:
    task, settings = interrupted(tmp_path / "run", 14, softsync=1, evaluate_every=0.75)
    lines = lines_of(tmp_path / "run")
    version = read_summary(tmp_path / "run")["version"]
    assert version == 3
    assert len(lines) > 3 * version
    assert replay(task, settings, tmp_path / "run", quiet=True) == Replayed(version, 0.0, True)
    write(tmp_path / "run", lines[: 3 * version - 1])
    with pytest.raises(ConfigError, match=rf"fewer updates.*updates: {version}\)"):
        replay(task, settings, tmp_path / "run", quiet=True)


def test_a_run_that_lost_learners_is_repeated_with_its_losses(tmp_path: Path) -> None:
    order = [0, 1, 2, 1, -2, 0, 1, 0, 0, -1]
    entries = [{"gone": -entry} if entry < 0 else {"learner": entry} for entry in order]
    (tmp_path / "order").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
    task, settings = make_task(), settings_of(tmp_path / "run", "asgd", deliveries=tmp_path / "order")
    execute(task, settings, quiet=True)
    assert sum("gone" in line for line in lines_of(tmp_path / "run")) == 1, "the second is gone when all is done"
    (tmp_path / "order").unlink()
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL
    # Without the line the learner would be answered, and never come: that changes nothing for the others.
    write(tmp_path / "run", [line for line in lines_of(tmp_path / "run") if "gone" not in line])
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL


def test_a_run_without_a_model_yet_or_without_a_record_is_refused(tmp_path: Path) -> None:
    task, settings = interrupted(tmp_path / "run", 2)
    with pytest.raises(ConfigError, match=r"no model yet to compare with \(folder: .*run\)"):
        replay(task, settings, tmp_path / "run", quiet=True)
    task, settings = interrupted(tmp_path / "other", 7)
    (tmp_path / "other" / DELIVERIES).unlink()
    with pytest.raises(ConfigError, match="the record cannot be read"):
        replay(task, settings, tmp_path / "other", quiet=True)


def test_a_run_on_a_grid_has_no_order_to_repeat(tmp_path: Path) -> None:
    task, settings = make_task(), make_settings(1, 1, engine="simulator", out=tmp_path / "run")
    execute(task, settings, quiet=True)
    with pytest.raises(ConfigError, match=r"\(method: pham-ahn\); run it again with train --config, or see verify"):
        replay(task, settings, tmp_path / "run", quiet=True)


def test_a_run_from_python_says_how_it_can_be_repeated(tmp_path: Path) -> None:
    task, settings = make_task(), settings_of(tmp_path / "run", "softsync", softsync=3)
    first = execute(task, settings, quiet=True)
    with pytest.raises(ConfigError, match=r"says nothing of its model and data") as caught:
        recorded_config(tmp_path / "run")
    hint = f'train(..., engine="simulator", servers=ServerSettings(deliveries="{tmp_path / "run" / DELIVERIES}"))'
    assert hint in str(caught.value)
    changes: dict[str, Any] = {"deliveries": str(tmp_path / "run" / DELIVERIES), "out": tmp_path / "again"}
    again = execute(task, changed(settings, jitter=0.0, **changes), quiet=True)
    state = again.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in first.model.state_dict().items())


# As a user meets it


def trained(folder: Path, *arguments: str) -> Path:
    assert main(["train", *QUICK, "--out", str(folder), *arguments]) == 0
    return folder


@pytest.mark.parametrize(
    "arguments",
    [
        ["--method", "softsync", "--servers.softsync", "4", "--servers", "2"],
        ["--method", "asgd", "--method.rule", "gap", "--servers.max-staleness", "2", "--optimizer", "sgd"],
        ["--method", "hardsync", "--learners", "2", "--servers.momentum-at", "learner", "--output.trace", "true"],
        ["--method", "softsync", "--optimizer", "adam", "--schedule", "step", "--training.dtype", "float64"],
    ],
    ids=" ".join,
)
def test_replay_says_the_same_bits_and_exits_with_0(arguments: list[str], tmp_path: Path, capsys: Said) -> None:
    folder = trained(tmp_path / "run", *arguments)
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 0
    assert "version 6: the replay has the same bits as the run" in capsys.readouterr().out


def test_what_a_run_wrote_down_is_what_it_was(tmp_path: Path) -> None:
    folder = trained(tmp_path / "run", "--method", "softsync", "--lr", "0.02", "--method.clip", "3", "--model", "mlp")
    found = recorded_config(folder)
    assert isinstance(found, RunConfig)
    assert (found.servers.learners, found.servers.softsync) == (4, 1)
    assert (found.method.name, found.method.corrections) == ("softsync", ["inverse-staleness"])
    assert found.method.clip == 3.0
    assert (found.training.updates, found.training.batch_size) == (6, 8)
    assert (found.optimizer.lr, found.devices.jitter, found.output.folder) == (0.02, 0.3, None)


def test_replay_says_other_bits_and_exits_with_1(tmp_path: Path, capsys: Said) -> None:
    folder = trained(tmp_path / "run", "--method", "asgd")
    swap(folder, lambda entries, k: entries[k]["version"] == entries[k + 1]["version"] == 0)
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "version 6: the replay has OTHER bits (largest difference: " in said


def refused(capsys: Said, folder: Path) -> str:
    capsys.readouterr()
    assert main(["replay", str(folder)]) == 2
    said = capsys.readouterr().err
    assert said.startswith("stalegrid replay: ")
    assert "Traceback" not in said
    return said


def test_replay_of_what_cannot_be_repeated_says_why_and_exits_with_2(tmp_path: Path, capsys: Said) -> None:
    assert f"this is not the folder of a run (folder: {tmp_path}" in refused(capsys, tmp_path)
    assert "this is not the folder of a run" in refused(capsys, tmp_path / "nowhere")
    assert main(["train", "--engine", "simulator", "--updates", "2", "--out", str(tmp_path / "grid")]) == 0
    assert "there is none to replay (method: pham-ahn)" in refused(capsys, tmp_path / "grid")
    execute(make_task(), settings_of(tmp_path / "python", "asgd", updates=1), quiet=True)
    assert "it was started from Python" in refused(capsys, tmp_path / "python")
    folder = trained(tmp_path / "run", "--method", "asgd")
    lines = lines_of(folder)
    write(folder, lines[:-1])
    assert "the record holds fewer updates than the model has" in refused(capsys, folder)
    write(folder, [*lines[:2], "rubbish\n", *lines[2:]])
    assert "line 3 is no delivery" in refused(capsys, folder)
    write(folder, [lines[0].replace('"learner": ', '"learner": 1'), *lines[1:]])
    assert "line 1 is of a learner that does not exist" in refused(capsys, folder)
    write(folder, ['{"gone": 0}\n', '{"gone": 0}\n', *lines])
    assert "there is no learner 0 to lose; this order is of no such run" in refused(capsys, folder)
    (folder / DELIVERIES).unlink()
    assert "the record cannot be read" in refused(capsys, folder)
    write(folder, lines)
    (folder / SUMMARY).unlink()
    assert "the run has no model yet to compare with" in refused(capsys, folder)


def test_the_model_that_is_compared_is_the_whole_one(tmp_path: Path) -> None:
    settings, task = settings_of(tmp_path / "run", "softsync", servers=3), make_task(model=build(Net))
    result = execute(task, settings, quiet=True)
    assert result.model.state_dict().keys() == task.model.state_dict().keys()
    assert int(result.model.norm1.num_batches_tracked) > 0
    assert replay(task, settings, tmp_path / "run", quiet=True) == EQUAL
