"""Who opens data: whoever reads or compares it, and nobody else."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, IterableDataset, RandomSampler

import stalegrid
from stalegrid import Callback, train

WIDTHS = (5, 6, 7, 3)
"""Of what layers make: so a factory of optimizers knows its stage."""


class Noted(Dataset[Any]):
    """Samples that note in which process they are unpickled."""

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name = folder, name
        self.inputs = torch.randn(size, 4, generator=torch.Generator().manual_seed(size))

    def __len__(self) -> int:
        return len(self.inputs)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.inputs[index], index % 3

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        note(self.folder, self.name)


class NotedStream(IterableDataset[Any]):
    def __init__(self, data: Noted) -> None:
        self.data = data

    def __iter__(self) -> Any:
        return (self.data[index] for index in range(len(self.data)))


class Watching(Callback):
    stops = False

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_report(self, record: Any) -> None:
        note(self.folder, "observer")


def note(folder: Path, what: str) -> None:
    (folder / f"{what}-{os.getpid()}").touch()


def noted(folder: Path, what: str) -> set[str]:
    """Return the processes that noted something, but for this one."""
    return {path.name.rpartition("-")[2] for path in folder.glob(f"{what}-*")} - {str(os.getpid())}


def net() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(*(nn.Linear(a, b) for a, b in zip((4, *WIDTHS), WIDTHS, strict=False)))


def trained(folder: Path, engine: str, data: Any, **asked: Any) -> nn.Module:
    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        listed = list(parameters)
        note(folder, f"stage{WIDTHS.index(listed[0].shape[0])}" if engine == "processes" else "other")
        return torch.optim.SGD(listed, lr=0.1, momentum=0.5)

    usual: dict[str, Any] = {"batch_size": 4, "updates": 4, "groups": 1, "test": Noted(folder, "test", 9)}
    return train(
        net(),
        data,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        engine=engine,  # type: ignore[arg-type]
        callbacks=[Watching(folder)] if engine == "processes" else [],
        quiet=True,
        **(usual | asked),
    ).model


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def on_both(folder: Path, data: Callable[[], Any], **asked: Any) -> None:
    """Train in processes, and hold that against the simulator, which opens nothing anew."""
    found = trained(folder, "processes", data(), **asked)
    before = len(list(folder.iterdir()))
    expected = trained(folder, "simulator", data(), **asked)
    assert same(found, expected)
    assert len([path for path in folder.iterdir() if not path.name.startswith("other")]) == before


def stages(folder: Path, *which: int) -> set[str]:
    return set().union(*(noted(folder, f"stage{k}") for k in which))


GRIDS: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "one stage": ({"stages": 1}, (0,)),
    "two groups": ({"stages": 2, "groups": 2, "cuts": ["2"]}, (0, 2)),
    "three stages": ({"stages": 3, "cuts": ["1", "3"]}, (0, 3)),
    "targets that travel": ({"stages": 3, "cuts": ["1", "3"], "training": {"targets": "travel"}}, (0,)),
    "incomplete batches": (
        {"stages": 3, "cuts": ["1", "3"], "training": {"targets": "travel", "drop_last": False}, "updates": 12},
        (0,),
    ),
    "late, in one process": ({"stages": 4, "cuts": ["1", "2", "3"], "processes": 1}, (0, 1, 2, 3)),
}


def settled(asked: dict[str, Any]) -> dict[str, Any]:
    training = {"batch_size": 4, "updates": asked.get("updates", 4), **asked.get("training", {})}
    rest = {name: value for name, value in asked.items() if name not in ("training", "updates")}
    return {**rest, "training": stalegrid.TrainingSettings(**training), "batch_size": None, "updates": None}


@pytest.mark.parametrize("grid", GRIDS)
def test_stages_that_read_open_the_training_data_and_the_observer_the_test_data(grid: str, tmp_path: Path) -> None:
    asked, reading = GRIDS[grid]
    on_both(tmp_path, lambda: Noted(tmp_path, "train", 26), **settled(asked))
    observer = noted(tmp_path, "observer")
    assert len(observer) == 1
    assert noted(tmp_path, "test") == observer
    assert noted(tmp_path, "train") == stages(tmp_path, *reading)
    assert noted(tmp_path, "train") - observer == noted(tmp_path, "train")


def test_a_stream_is_opened_by_first_stages(tmp_path: Path) -> None:
    on_both(tmp_path, lambda: NotedStream(Noted(tmp_path, "train", 24)), stages=3, cuts=["1", "3"], groups=2)
    assert noted(tmp_path, "train") == stages(tmp_path, 0)


def test_what_only_a_sampler_knows_is_asked_of_it_where_targets_travel(tmp_path: Path) -> None:
    def data() -> DataLoader[Any]:
        found = Noted(tmp_path, "train", 24)
        return DataLoader(found, 4, sampler=RandomSampler(found, num_samples=16))

    travel = stalegrid.TrainingSettings(targets="travel", updates=4)
    on_both(tmp_path, data, stages=3, cuts=["1", "3"], training=travel, batch_size=None, updates=None)
    assert noted(tmp_path, "train") == stages(tmp_path, 0, 3)


def test_servers_open_no_data_and_learners_the_training_data(tmp_path: Path) -> None:
    servers = stalegrid.ServerSettings(number=2, learners=2)
    trained(tmp_path, "processes", Noted(tmp_path, "train", 24), method="hardsync", servers=servers, groups=None)
    assert len(noted(tmp_path, "train")) == 2
    assert not noted(tmp_path, "train") & noted(tmp_path, "observer")
    assert not noted(tmp_path, "train") & noted(tmp_path, "stage?")
    assert noted(tmp_path, "test") == noted(tmp_path, "observer")


class Shared:
    """A loss that holds the data, and counts its calls in what the data reads."""

    def __init__(self, data: Noted) -> None:
        self.data = data

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        assert self.data.inputs.ndim == 2
        return nn.functional.cross_entropy(outputs, targets)


def test_data_that_a_loss_holds_is_opened_with_it(tmp_path: Path) -> None:
    data = Noted(tmp_path, "train", 24)
    made = train(
        net(), data, loss=Shared(data), optimizer=lambda p: torch.optim.SGD(p, lr=0.1), groups=1, stages=3,
        cuts=["1", "3"], batch_size=4, updates=2, quiet=True,
    )  # fmt: skip
    assert made.summary["version"] == 2
    assert len(noted(tmp_path, "train")) == 4


def test_data_may_be_given_as_a_function(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"stages": 2, "cuts": ["2"], "test": lambda: Noted(tmp_path, "test", 9)}
    found = trained(tmp_path, "processes", lambda: DataLoader(Noted(tmp_path, "train", 24), 4), **asked)
    plain = trained(tmp_path, "simulator", DataLoader(Noted(tmp_path, "train", 24), 4), stages=2, cuts=["2"])
    assert same(found, plain)
    assert noted(tmp_path, "train") == stages(tmp_path, 0, 2)
    assert noted(tmp_path, "test") == noted(tmp_path, "observer")


WORK = """
import os
import weakref
from pathlib import Path

import torch
from torch import nn
from torch.utils.data import Dataset

LIVING = weakref.WeakSet()


class Own(Dataset):
    def __init__(self, name, size):
        self.name, self.inputs = name, torch.randn(size, 4)
        LIVING.add(self)
        with open(f"made-{os.environ['RANK']}", "a") as file:
            print(name, file=file)

    def __len__(self):
        return len(self.inputs)

    def __getitem__(self, index):
        return self.inputs[index], index % 3


class Noting(torch.optim.SGD):
    def step(self, closure=None):
        if os.environ.get("RANK"):
            Path(f"open-{os.environ['RANK']}").write_text(" ".join(sorted(data.name for data in LIVING)))
        return super().step(closure)


def net():
    return nn.Sequential(nn.Linear(4, 5), nn.Linear(5, 6), nn.Linear(6, 7), nn.Linear(7, 3))


def sets():
    return Own("train", 24), Own("test", 9)
"""

SCRIPT = """
import work, torch, stalegrid
stalegrid.train(
    work.net(), lambda: work.sets()[0], test=lambda: work.sets()[1], loss=torch.nn.CrossEntropyLoss(), groups=1,
    stages=3, cuts=["1", "3"], batch_size=4, updates=6, optimizer=lambda p: work.Noting(p, lr=0.1), quiet=True)
"""

COMMAND = """
-m stalegrid train --model work:net --data work:sets --optimizer work:Noting --optimizer.args.lr 0.1
--loss torch.nn:CrossEntropyLoss --groups 1 --stages 3 --cuts 1,3 --batch-size 4 --updates 6
"""


@pytest.mark.thorough
@pytest.mark.parametrize("way", ["command", "script"])
def test_under_torchrun_only_those_who_read_keep_what_all_have_compared(way: str, tmp_path: Path) -> None:
    (tmp_path / "work.py").write_text(WORK)
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    command = [*launcher, *(COMMAND.split() if way == "command" else ["script.py"])]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(tmp_path), *sys.path])}
    made = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr
    kept = [(tmp_path / f"open-{rank}").read_text().split() for rank in range(3)]
    assert json.dumps(kept) == json.dumps([["test", "train"], [], ["train"]]), "the first one is the observer's, too"
    for rank in range(3):
        assert "train" in (tmp_path / f"made-{rank}").read_text(), "all have compared it"
