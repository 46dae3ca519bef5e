"""Workers find the user's modules where their starter does, and compute under what surrounds it."""

import importlib
import os
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.engines.distributed.job import Job, read_job, write_job
from stalegrid.engines.distributed.warm import KEPT
from stalegrid.errors import ConfigError, EngineError
from stalegrid.observe.records import Nowhere
from tests import cases
from tests.cases import make_plan, make_settings, make_task
from tests.engines.distributed.test_failures import MARK, workers

DATA = TensorDataset(torch.linspace(-1, 1, 256).view(64, 4), torch.arange(64) % 2)

OURS = """
import torch
from torch import nn

def halve(module, inputs):
    return (inputs[0] * 0.5,)

def loss(outputs, targets):
    third = torch.tensor(1 / 3).double()  # rounded to the default type
    return nn.functional.cross_entropy(outputs, targets) * third
"""


def train(engine: str, loss: object, model: nn.Module, **settings: object) -> dict[str, Tensor]:
    options = {"method": "pham-ahn", "groups": 2, "stages": 1, "batch_size": 4, "updates": 5, "dtype": "float64"}
    result = cases.train(
        model,
        DATA,
        loss=loss,  # type: ignore[arg-type]
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        engine=engine,
        quiet=True,
        **(options | settings),
    )
    return result.model.state_dict()


def test_modules_hooks_and_the_default_type_are_those_of_the_starter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A folder whose name PYTHONPATH could not hold, and a current folder that must not be looked into.
    folder, current = tmp_path / "a:b", tmp_path / "current"
    folder.mkdir()
    current.mkdir()
    (folder / "module_of_a_user.py").write_text(OURS)
    for name in ("module_of_a_user", "safetensors", "rich"):
        (current / f"{name}.py").write_text("raise RuntimeError('the wrong one')")
    monkeypatch.syspath_prepend(folder)
    monkeypatch.chdir(current)
    KEPT.end()  # so that libraries are loaded there
    ours = importlib.import_module("module_of_a_user")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    for part in model.modules():
        part.register_forward_pre_hook(ours.halve)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    try:
        found, due = (train(engine, ours.loss, model) for engine in ("processes", "simulator"))
    finally:
        torch.set_default_dtype(before)
    sys.modules.pop("module_of_a_user")
    assert all(torch.equal(value, due[name]) for name, value in found.items())


def test_a_process_without_standard_streams_trains_and_prints_into_no_file_of_the_run() -> None:
    model = nn.Linear(4, 2)
    model.register_forward_pre_hook(lambda *_: print("heard by nobody"))
    child = os.fork()
    if not child:
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = None  # type: ignore[assignment, misc]
        os.closerange(0, 3)
        try:
            train("processes", nn.CrossEntropyLoss(), model, method="sgd", groups=1)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_too_few_file_handles_are_told_in_one_error_and_nobody_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(MARK, str(os.getpid()))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = set(map(int, os.listdir("/proc/self/fd")))
    free = [number for number in range(soft) if number not in opened]
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[9], hard))
    try:
        with pytest.raises(EngineError, match=r"^a worker process cannot be started: Too many open files; close"):
            train("processes", nn.CrossEntropyLoss(), nn.Linear(4, 2), groups=16)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert not workers()


def job() -> Job:
    task, settings = make_task(), make_settings(1, 2)
    return Job(task, make_plan(task, settings), settings.engine, False, False, Nowhere, Path("run"))


def test_a_job_is_read_by_many_from_a_file_that_nobody_else_can_find() -> None:
    made = job()
    with write_job(made) as file:
        assert os.fstat(file.fileno()).st_nlink == 0
        for _ in range(2):
            found = read_job(os.dup(file.fileno()))
            assert (found.engine, found.plan.training) == (made.engine, made.plan.training)
            assert found.task.model.state_dict().keys() == made.task.model.state_dict().keys()


def test_a_full_disk_is_told_as_one(monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(ConfigError, match=r"find no room on their way to worker processes \(TMPDIR: "):
            write_job(job())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
