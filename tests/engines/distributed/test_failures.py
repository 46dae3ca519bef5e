"""Whatever fails ends the whole run in time, says where, and leaves no process behind."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.engines.settings import EngineSettings
from stalegrid.errors import DeadlineExceeded, NonFiniteLoss, WorkerDied
from stalegrid.observe import Callback, Record
from stalegrid.observe.settings import OutputSettings
from tests import cases

DATA = TensorDataset(torch.randn(64, 4), torch.randint(0, 2, (64,)))


class Trap(nn.Module):
    """A layer that does something in its n-th forward, kept whole because the tracer cannot follow it."""

    def __init__(self, when: int, act: str, told: Path | None = None) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)
        self.when, self.act, self.seen, self.told = when, act, 0, told

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().sum()) < float("inf"):  # a value: not to be traced
            self.seen += 1
        if self.seen == self.when:
            if self.told is not None:
                self.told.with_suffix(".part").write_text(str(os.getpid()))
                self.told.with_suffix(".part").replace(self.told)
            if self.act == "raise":
                raise ValueError("the model gives up")
            os.kill(os.getpid(), {"die": signal.SIGKILL, "stall": signal.SIGSTOP}[self.act])
        return self.layer(x)


def train(act: str, when: int = 12, **settings: object) -> stalegrid.Result:
    """Train two stages, the second of which holds the trap; planning forwards copies of it."""
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Trap(when, act), nn.Linear(4, 2))
    options = {"groups": 1, "stages": 2, "cuts": ["2"], "batch_size": 4, "updates": 200, "log_every": 1}
    return cases.train(
        model,
        DATA,
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        quiet=True,
        **(options | settings),
    )


MARK = "STALEGRID_TEST_PROCESS"


@pytest.fixture(autouse=True)
def _marked(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mark what is started here: other tests may run workers of their own at the same time."""
    monkeypatch.setenv(MARK, str(os.getpid()))


def processes() -> dict[int, int]:
    """Return the processes that this test process has started to have workers, and their parents."""
    found = {}
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            ours = f"{MARK}={os.getpid()}\0".encode() in path.with_name("environ").read_bytes()
            if ours and b"engines/distributed/__main__.py" in path.read_bytes():
                found[int(path.parent.name)] = int(path.with_name("stat").read_text().rsplit(")", 1)[1].split()[1])
        except OSError:
            continue  # ended meanwhile
    return found


def workers() -> set[int]:
    """Return the workers among them, which another one of them has forked."""
    found = processes()
    return {process for process, parent in found.items() if parent in found}


def wait_until(condition: object, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():  # type: ignore[operator]
            return True
        time.sleep(0.05)
    return False


def test_a_worker_that_dies_is_named_with_who_waits_for_what() -> None:
    before = workers()
    with pytest.raises(WorkerDied, match=r"process 1 of units \(0,1\).*signal 9") as caught:
        train("die")
    # Who outlives it finds that out when it waits for it; or before, by what it sends or where it would receive.
    found = r"the channel of (activation|gradient) .* broke: (unit \(0,0\) waits for gradient of|nobody here waits yet)"
    assert re.search(found, str(caught.value)), caught.value
    assert workers() == before


@pytest.mark.thorough
def test_a_worker_that_stalls_ends_the_run_within_the_deadline() -> None:
    before = workers()
    with pytest.raises(
        DeadlineExceeded,
        match=r"^unit \(0,1\) is silent: unit \(0,0\) waits for gradient of batch or update \d+ from \(0,1\)",
    ):
        train("stall", engine=EngineSettings(deadline=15.0))
    assert workers() == before


class Stopped(stalegrid.Callback):
    """Stops the observer's process when all others have nothing left to do."""

    def on_end(self, summary: dict[str, Any]) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)


def test_an_observer_that_is_stopped_in_its_end_ends_the_run_within_the_deadline() -> None:
    before = workers()
    with pytest.raises(DeadlineExceeded, match="the observer is silent: all others have done their work and ended"):
        stalegrid.train(
            nn.Linear(4, 2),
            DATA,
            loss=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.SGD, lr=0.1),
            groups=1,
            stages=1,
            batch_size=4,
            updates=4,
            callbacks=[Stopped()],
            engine=EngineSettings(deadline=5.0),
            quiet=True,
        )
    assert workers() == before


def test_an_error_of_the_model_comes_back_as_it_is() -> None:
    with pytest.raises(ValueError, match="the model gives up") as caught:
        train("raise")
    notes = "".join(caught.value.__notes__)
    assert "unit (0,1), action F" in notes


class UntilAlone(Callback):
    """Keeps the observer from everything until somebody has given up and is gone."""

    def __init__(self, told: Path) -> None:
        self.told = told

    def on_report(self, record: Record) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and not (self.told.exists() and self._ended(int(self.told.read_text()))):
            time.sleep(0.02)

    def _ended(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "Z"
        except FileNotFoundError:
            return True


def test_what_was_told_before_an_error_is_dealt_with_though_its_sender_is_gone(tmp_path: Path) -> None:
    told, out = tmp_path / "told", tmp_path / "out"
    with pytest.raises(ValueError, match="gives up"):
        stalegrid.train(
            nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Trap(20, "raise", told), nn.Linear(4, 2)),
            DATA,
            loss=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.SGD, lr=0.1),
            groups=1,
            stages=1,
            batch_size=4,
            updates=200,
            callbacks=[UntilAlone(told)],
            output=OutputSettings(folder=out, log_every=1),
            quiet=True,
        )
    records = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [record["update"] for record in records if record["kind"] == "train"] == list(range(1, 20))


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_what_was_measured(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    with pytest.raises(NonFiniteLoss, match=r"unit: \(0,1\), batch: \d+, version: \d+"):
        cases.train(
            model,
            DATA,
            loss=nn.CrossEntropyLoss(),
            optimizer=partial(torch.optim.SGD, lr=1e18),
            groups=1,
            stages=2,
            batch_size=4,
            epochs=40,
            out=tmp_path / "run",
            quiet=True,
            output=OutputSettings(log_every=1),
        )
    assert (tmp_path / "run" / "metrics.jsonl").read_text().count('"train"') >= 1
    assert (tmp_path / "run" / "config.yaml").exists()


@contextmanager
def long_run(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "stalegrid", "train", "--epochs", "100000", "--out", str(folder)]
    # Tests that run in the background of a script inherit that interrupts, or hang-ups, are ignored.
    old = [
        signal.signal(signal.SIGINT, signal.default_int_handler),
        signal.signal(signal.SIGHUP, signal.SIG_DFL),
    ]
    try:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, old[0])
        signal.signal(signal.SIGHUP, old[1])
    try:
        yield run
    finally:
        run.kill()


def has_reported(folder: Path) -> bool:
    metrics = folder / "metrics.jsonl"
    return metrics.exists() and metrics.stat().st_size > 0


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A place for scratch files that nobody else uses."""
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setenv("TMPDIR", str(folder))
    return folder


@pytest.mark.parametrize(
    ("number", "status", "told"),
    [
        (signal.SIGINT, 130, b"interrupted"),
        pytest.param(signal.SIGHUP, 128 + signal.SIGHUP, b"", marks=pytest.mark.thorough),
    ],
)
def test_a_run_that_is_ended_ends_all_processes_and_keeps_the_results(
    number: int, status: int, told: bytes, tmp_path: Path, scratch: Path
) -> None:
    before = processes()
    with long_run(tmp_path / "run") as run:
        assert wait_until(lambda: has_reported(tmp_path / "run"), 120)
        assert list(scratch.glob("stalegrid-*"))
        run.send_signal(number)
        _, errors = run.communicate(timeout=60)
    assert run.returncode == status
    assert told in errors
    assert b"Traceback" not in errors
    assert processes() == before
    assert not list(scratch.glob("stalegrid-*"))


def test_all_processes_end_with_the_one_that_started_them_and_leave_no_file(tmp_path: Path, scratch: Path) -> None:
    before = processes()
    with long_run(tmp_path / "run") as run:
        assert wait_until(lambda: has_reported(tmp_path / "run"), 120)
        assert len(processes()) == len(before) + 6
        run.kill()
        run.communicate(timeout=60)
    assert wait_until(lambda: processes() == before, 30)
    assert not list(scratch.glob("stalegrid-*"))


SLOW = """
import sys, time
import torch
from torch import nn
import stalegrid

how, engine, folder = sys.argv[1:]

class Slow(torch.utils.data.Dataset):
    def __len__(self):
        return 64

    def __getitem__(self, index):
        if index == 9 and torch.utils.data.get_worker_info() is not None and how == "raise":
            raise OSError("the file is gone")
        time.sleep(0.01)
        return torch.ones(4), 0

model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
stalegrid.train(
    model, Slow(), loss=nn.CrossEntropyLoss(), optimizer=lambda ps: torch.optim.SGD(ps, lr=0.1), method="pham-ahn",
    groups=1, stages=2, batch_size=4, epochs=100000, workers=2, engine=engine,
    output=stalegrid.OutputSettings(folder=folder, log_every=1),
)
"""


def marked() -> set[int]:
    """Return all processes that were started here."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):  # ended meanwhile
            if f"{MARK}={os.getpid()}\0".encode() in path.read_bytes():
                found.add(int(path.parent.name))
    return found


@pytest.mark.parametrize(
    ("how", "engine", "readers"),
    [
        ("kill", "simulator", 2),
        ("kill", "processes", 4),
        pytest.param("interrupt", "processes", 4, marks=pytest.mark.thorough),
        pytest.param("raise", "simulator", 2, marks=pytest.mark.thorough),
    ],
)
def test_nobody_reads_ahead_for_a_run_that_is_over(how: str, engine: str, readers: int, tmp_path: Path) -> None:
    before = marked()
    command = [sys.executable, "-c", SLOW, how, engine, str(tmp_path / "run")]
    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    finally:
        signal.signal(signal.SIGINT, old)
    try:
        if how != "raise":
            assert wait_until(lambda: has_reported(tmp_path / "run"), 60)
            assert len(marked() - before) >= 1 + readers
            run.send_signal(signal.SIGKILL if how == "kill" else signal.SIGINT)
        _, errors = run.communicate(timeout=120)
    finally:
        run.kill()
    assert wait_until(lambda: marked() == before, 30)
    if how == "raise":
        assert b"SampleError: a sample cannot be read (sample: 9, epoch: 0): OSError: the file is gone" in errors
