"""What becomes of a run's folder when something goes wrong: before the start it is removed, afterwards nothing is."""

import json
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from threading import Lock
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

import stalegrid
from stalegrid.errors import ConfigError, NonFiniteLoss, OutputError, SampleError, StalegridError
from stalegrid.observe.folder import FAILURE, METRICS, MODEL, SUMMARY
from stalegrid.observe.results import announce, open_folder
from tests import cases
from tests.cases import images
from tests.disks import full_disk


class Late(Dataset[tuple[Tensor, Tensor]]):
    """Does something when an item has been read a number of times."""

    def __init__(self, act: Callable[[], object], reads: int = 8) -> None:
        self.images = images(8)
        self.act = act
        self.left = reads

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.left -= index == 3
        if self.left < 0:
            self.act()
        return self.images[index]


def fail(error: Exception) -> None:
    raise error


def train(out: Path | None, **changes: Any) -> stalegrid.Result:
    options: dict[str, Any] = {
        "model": nn.Sequential(nn.Flatten(), nn.Linear(72, 3)),
        "data": images(8),
        "loss": nn.CrossEntropyLoss(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
        "groups": 1,
        "stages": 1,
        "batch_size": 4,
        "epochs": 8,
        "log_every": 1,
        "engine": "simulator",
        "quiet": True,
        "out": out,
    }
    options |= changes
    return cases.train(options.pop("model"), options.pop("data"), **options)


def evaluated(out: Path) -> list[int]:
    lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [line["version"] for line in lines if line["kind"] == "test"]


@pytest.mark.parametrize(("engine", "method"), [("simulator", "sgd"), ("simulator", "hardsync"), ("processes", "sgd")])
def test_a_sample_that_fails_late_leaves_the_results_so_far(tmp_path: Path, engine: str, method: str) -> None:
    out = tmp_path / "out"
    own: dict[str, Any] = {"learners": 1, "groups": None, "stages": None} if method == "hardsync" else {}
    data = Late(partial(fail, SampleError("sample 3 is broken")))
    with pytest.raises(SampleError, match="sample 3"):
        train(out, data=data, engine=engine, method=method, **own)
    assert {MODEL, SUMMARY, METRICS} <= {path.name for path in out.iterdir()}
    assert evaluated(out)
    failure = json.loads((out / FAILURE).read_text())
    assert failure["by"] == "SampleError"
    assert "sample 3" in failure["why"]


def test_an_error_of_the_users_own_leaves_the_results_so_far_whatever_it_is(tmp_path: Path) -> None:
    for number, error in enumerate((ConfigError("late"), ValueError("late"), MemoryError())):
        out = tmp_path / str(number)
        with pytest.raises((type(error), StalegridError)):
            train(out, data=Late(partial(fail, error)))
        assert evaluated(out)


def begin_and_fail(out: Path, error: BaseException, *, again: bool = False) -> None:
    with open_folder(out, again=again) as folder:
        announce("a run", {}, None, folder, quiet=True)
        raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("two\nlines")])
def test_how_a_run_failed_is_noted_in_a_line(tmp_path: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        begin_and_fail(tmp_path / "out", error)
    noted = json.loads((tmp_path / "out" / FAILURE).read_text())
    assert noted == {"by": type(error).__name__, "why": str(error).replace("\n", " ")}


def test_a_run_that_goes_on_and_cannot_be_written_any_more_has_failed(tmp_path: Path) -> None:
    with pytest.raises(OutputError):
        begin_and_fail(tmp_path, OutputError("no room"), again=True)
    assert json.loads((tmp_path / FAILURE).read_text())["by"] == "OutputError"


def test_before_a_run_is_written_down_nothing_is_noted(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), open_folder(tmp_path / "out"):
        raise KeyboardInterrupt
    assert list((tmp_path / "out").iterdir()) == []


def test_a_refusal_to_go_on_leaves_the_folder_as_it_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError), open_folder(tmp_path, again=True):
        raise ConfigError("no")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("error", [ConfigError("no"), OutputError("no room")])
def test_what_is_refused_before_the_start_leaves_no_folder(tmp_path: Path, error: Exception) -> None:
    with pytest.raises(type(error)), open_folder(tmp_path / "out"):
        raise error
    assert not (tmp_path / "out").exists()


class Built:
    """Makes optimizers, and fails once agents are built with them: beside a file of results, or in another process."""

    def __init__(self, made: Path) -> None:
        self.made = made
        self.starter = os.getpid()

    def __call__(self, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        if self.made.exists() or os.getpid() != self.starter:
            raise ConfigError("not with these parameters")
        return torch.optim.SGD(parameters, lr=0.1)


@pytest.mark.parametrize(("engine", "method"), [("simulator", "sgd"), ("simulator", "hardsync"), ("processes", "sgd")])
def test_what_is_refused_while_agents_are_built_leaves_no_folder(tmp_path: Path, engine: str, method: str) -> None:
    own: dict[str, Any] = {"learners": 1, "groups": None, "stages": None} if method == "hardsync" else {}
    out = tmp_path / "out"
    with pytest.raises(ConfigError, match="not with these parameters"):
        train(out, optimizer=Built(out / METRICS), engine=engine, method=method, **own)
    assert not out.exists()


def test_what_cannot_be_sent_to_processes_leaves_no_folder(tmp_path: Path) -> None:
    data = images(8)
    data.lock = Lock()  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match="cannot be sent"):
        train(tmp_path / "out", data=data, engine="processes")
    assert not (tmp_path / "out").exists()


def test_a_folder_for_temporary_files_that_is_none_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(ConfigError, match="let TMPDIR name a folder"), open_folder(None):
        pass


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")  # TensorBoard's own writer
def test_a_disk_that_is_full_late_is_a_line_and_leaves_the_results_so_far(tmp_path: Path) -> None:
    out, before = tmp_path / "out", set(threading.enumerate())
    message = r"cannot be written \(file: .*metrics\.jsonl\): File too large"
    with ExitStack() as disk, pytest.raises(OutputError, match=message):
        train(out, data=Late(lambda: disk.enter_context(full_disk())))
    for thread in set(threading.enumerate()) - before:
        thread.join(30)
    assert evaluated(out)
    assert json.loads((out / SUMMARY).read_text())["updates"] == evaluated(out)[-1]


def test_a_disk_that_is_full_at_the_start_leaves_no_folder(tmp_path: Path) -> None:
    with full_disk(), pytest.raises(OutputError, match=r"config\.yaml"):
        train(tmp_path / "out")
    assert not (tmp_path / "out").exists()


class Counting(nn.Module):
    """Counts its batches in a buffer that no state dict has."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(72, 3)
        self.register_buffer("level", torch.zeros(1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.level.add_(x.mean().detach())
        return self.fc(x.flatten(1)) + self.level


class Partly(Counting):
    """Saves its bias only, as models do whose adapters alone are worth a file."""

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        return {"fc.bias": super().state_dict(*args, **options)["fc.bias"]}

    def load_state_dict(self, state_dict: Any, strict: bool = True, assign: bool = False) -> Any:
        return super().load_state_dict(state_dict, strict=False, assign=assign)


@pytest.mark.parametrize(("engine", "kind"), [("simulator", Counting), ("processes", Counting), ("simulator", Partly)])
def test_the_result_is_the_measured_model(engine: str, kind: type[Counting]) -> None:
    data, loss, model = images(8), nn.CrossEntropyLoss(), kind()
    found = train(None, model=model, test=data, engine=engine)
    assert found.model.get_buffer("level") != 0
    assert not any(torch.equal(a, b) for a, b in zip(model.parameters(), found.model.parameters(), strict=True))
    with torch.no_grad():
        inputs, targets = (torch.stack([torch.as_tensor(item[i]) for item in data]) for i in (0, 1))
        assert float(loss(found.model(inputs), targets)) == found.summary["test_loss"]


class Exploding(torch.optim.SGD):
    """Makes its first parameter infinite at some step."""

    def __init__(self, parameters: Sequence[nn.Parameter], at: int) -> None:
        super().__init__(parameters, lr=0.1)
        self.left = at

    def step(self, closure: Any = None) -> Any:
        self.left -= 1
        if self.left == 0:
            self.param_groups[0]["params"][0].data.fill_(float("nan"))
        return super().step(closure)


@pytest.mark.parametrize("test", [None, images(8)], ids=["untested", "tested"])
def test_a_model_that_is_no_number_in_the_last_update_is_no_good_end(tmp_path: Path, test: Any) -> None:
    out = tmp_path / "out"
    with pytest.raises(NonFiniteLoss, match=r"mean model is not finite \(parameter: 1.weight, version: 16\)"):
        train(out, optimizer=partial(Exploding, at=16), test=test)
    assert evaluated(out)[-1] == 16
    summary = json.loads((out / SUMMARY).read_text(), parse_constant=pytest.fail)
    assert (summary["updates"], summary["test_loss"]) == (16, None)


def test_what_is_not_trained_may_be_infinite(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(72, 3))
    model.mask = nn.Parameter(torch.tensor([float("-inf")]), requires_grad=False)  # type: ignore[assignment]
    assert train(None, model=model, epochs=1).summary["updates"] == 2


class Overflowing(nn.CrossEntropyLoss):
    """Is infinite where nothing is trained."""

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return super().forward(outputs, targets) / float(torch.is_grad_enabled())


def test_a_test_loss_that_is_infinite_at_the_end_is_no_good_end(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteLoss, match=r"test loss at the end is infinite or no number \(version: 16\)"):
        train(tmp_path / "out", loss=Overflowing(), test=images(8))
    assert (tmp_path / "out" / MODEL).exists()
