"""Learners and parameter servers in processes of their own: what they record is repeated, and who dies is told.

As a module it runs the configurations that :func:`main` names in the processes that torchrun started.
"""

import dataclasses
import json
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.config import Settings
from stalegrid.engines.distributed import launch
from stalegrid.engines.distributed.launch import Workers
from stalegrid.engines.distributed.worker import ALIVE, MET
from stalegrid.errors import DeadlineExceeded, NonFiniteLoss, OutputError, PeerLost, WorkerDied
from stalegrid.plans.task import Task
from stalegrid.programs.deliveries import DELIVERIES
from stalegrid.programs.grid import OBSERVER, learner, server
from stalegrid.runs import Result, execute
from stalegrid.studies.replaying import Replayed, replay
from stalegrid.studies.verifying import verify
from tests.cases import changed, flat, make_task
from tests.engines.distributed import test_failures
from tests.engines.distributed.test_failures import wait_until, workers

ROOT = Path(__file__).parents[3]
MARK = test_failures.MARK
UPDATES = 8

DATA = TensorDataset(torch.linspace(-1, 1, 256).view(64, 4), torch.arange(64) % 2)
Said = pytest.CaptureFixture[str]


def served(method: str, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {"batch_size": 4, "updates": UPDATES, "log_every": 1, "evaluate_every": 0.0, "seed": 3}
    return flat(Settings, method=method, **(defaults | changes))


def deliveries(folder: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (folder / DELIVERIES).read_text().splitlines()]


# The same bits


def configurations() -> dict[str, Settings]:
    """Return what three processes can share equally."""
    return {
        "two-and-one": served("softsync", learners=2, softsync=1),
        "four-and-two": served("softsync", learners=4, servers=2, softsync=2, momentum_at="learner"),
        "asgd": served("asgd", learners=2, rule="dc=0.5", trace=True),
        "bounded": served("asgd", learners=4, servers=2, max_staleness=1, rule="gap"),
        "one-and-two": served("asgd", learners=1, servers=2),
        "hardsync": served("hardsync", learners=2),
    }


def task_of(settings: Settings) -> Task:
    steady = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    return make_task(scheduler=steady) if settings.servers.momentum_at == "learner" else make_task()


def main(folder: Path) -> None:
    """Run every configuration in the processes that torchrun started."""
    dist.init_process_group("gloo")
    for name, settings in configurations().items():
        execute(task_of(settings), changed(settings, out=folder / name), quiet=True)
    dist.destroy_process_group()


@pytest.mark.thorough
def test_runs_under_torchrun_end_well_and_are_repeated_on_the_simulator_to_the_same_bits(tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3"]
    script = ["-m", "tests.engines.distributed.test_served", str(tmp_path)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    made = subprocess.run(torchrun + script, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=200)
    assert made.returncode == 0, made.stderr[-4000:]
    for name, settings in configurations().items():
        folder, task = tmp_path / name, task_of(settings)
        assert replay(task, settings, folder, quiet=True) == Replayed(UPDATES, 0.0, True), name
        lines = deliveries(folder)
        assert len(lines) == UPDATES * {"two-and-one": 2, "four-and-two": 2, "hardsync": 2}.get(name, 1)
        staleness = [line["clock"] - line["version"] for line in lines]
        assert max(staleness) <= {"hardsync": 0, "one-and-two": 0, "bounded": 1}.get(name, UPDATES)
    again = tmp_path / "again"
    simulated = changed(configurations()["hardsync"], engine="simulator", out=again)
    execute(make_task(), simulated, quiet=True)
    assert (again / "model.safetensors").read_bytes() == (tmp_path / "hardsync" / "model.safetensors").read_bytes()
    assert (again / DELIVERIES).read_text() == (tmp_path / "hardsync" / DELIVERIES).read_text()


def test_verify_lets_processes_make_an_order_and_holds_its_repetition_and_the_loop_against_it() -> None:
    differences = verify(make_task(), served("softsync", learners=2, servers=2, softsync=2, processes=2))
    assert [difference.name for difference in differences] == ["processes", "plain loops"]
    assert all(difference.equal for difference in differences), differences


# Whoever fails


class Trap(nn.Module):
    """A layer that does something from its n-th forward on, in the process of one rank.

    Args:
        acts: by rank: n, and what; the ranks are servers, learners, then the observer.
    """

    def __init__(self, acts: dict[int, tuple[int, str]]) -> None:
        super().__init__()
        self.acts, self.seen = acts, 0

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        rank = dist.get_rank() if dist.is_initialized() else -1
        when, act = self.acts.get(rank, (0, ""))
        if self.seen >= when:
            match act:
                case "raise":
                    raise ValueError(f"rank {rank} gives up")
                case "diverge":
                    return x * float("nan")
                case "die":
                    os.kill(os.getpid(), signal.SIGKILL)
                case "stall":
                    os.kill(os.getpid(), signal.SIGSTOP)
        return x


def trapped(acts: dict[int, tuple[int, str]]) -> Task:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), Trap(acts), nn.Linear(6, 2))
    return Task(model, DATA, nn.CrossEntropyLoss(), partial(torch.optim.SGD, lr=0.05, momentum=0.9))


def run(task: Task, method: str, **changes: Any) -> Result:
    return execute(task, served(method, **changes), quiet=True)


@pytest.fixture(autouse=True)
def _no_orphans(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Mark the processes that are started here, and see that none is left."""
    monkeypatch.setenv(MARK, str(os.getpid()))
    assert not workers()
    yield
    assert not workers()


def test_learners_that_fail_are_told_and_dropped_and_the_run_is_repeated_without_them(
    tmp_path: Path, capfd: Said
) -> None:
    # The bound sees to it that everybody comes: each at least once in three updates.
    task = trapped({3: (4, "raise"), 4: (5, "die")})
    changes: dict[str, Any] = {"learners": 3, "servers": 2, "max_staleness": 2, "updates": 40}
    result = run(task, "softsync", out=tmp_path / "run", trace=True, **changes)
    assert result.summary["version"] == 40
    assert (tmp_path / "run" / "trace.json").exists(), "a trace needs nobody who is gone"
    said = capfd.readouterr().err
    assert "process 3 of units (1,0) failed: ValueError: rank 3 gives up; the others go on" in said
    assert "process 4 of units (2,0) ended without a word (killed by signal 9); the others go on" in said
    lines = deliveries(tmp_path / "run")
    assert sorted(line["gone"] for line in lines if "gone" in line) == [1, 2]
    taken = [line for line in lines if "gone" not in line]
    assert len(taken) == 40 * 3
    for number, most in ((1, 3), (2, 4)):
        assert sum(line["learner"] == number for line in taken) <= most
        after = lines[lines.index({"gone": number}) :]
        assert number not in [line.get("learner") for line in after]
    assert max(line["clock"] - line["version"] for line in taken) <= 2
    settings = served("softsync", **changes)
    assert replay(task, settings, tmp_path / "run", quiet=True) == Replayed(40, 0.0, True)


def test_when_no_learner_is_left_the_run_ends_with_what_a_learner_said(tmp_path: Path) -> None:
    task = trapped({1: (3, "raise"), 2: (4, "raise")})
    with pytest.raises(ValueError, match=r"rank \d gives up") as caught:
        run(task, "softsync", learners=2, updates=10**6, log_every=100, out=tmp_path / "run")
    assert "in a worker process" in "".join(caught.value.__notes__)
    assert sorted(line["gone"] for line in deliveries(tmp_path / "run") if "gone" in line) == [0, 1]


@contextmanager
def killing(rank: int, folder: Path, seconds: float = 120.0) -> Iterator[None]:
    """Kill the worker of a rank once the servers have taken some gradients; kill all if they never do."""

    def running() -> bool:
        record = folder / DELIVERIES
        return record.exists() and record.read_bytes().count(b"\n") > 5

    def kill() -> None:
        taken = wait_until(running, seconds)
        for process in workers():
            opened = [os.readlink(link) for link in Path(f"/proc/{process}/fd").iterdir() if link.is_symlink()]
            if not taken or any(name.endswith(f"/part-{rank}") for name in opened):
                os.kill(process, signal.SIGKILL)

    thread = threading.Thread(target=kill)
    thread.start()
    yield
    thread.join()


def test_a_server_that_dies_ends_the_run_and_is_named(tmp_path: Path) -> None:
    with (
        killing(1, tmp_path / "run"),
        pytest.raises(WorkerDied, match=r"process 1 of units server 1 ended without a word \(killed by signal 9\)"),
    ):
        run(trapped({}), "asgd", learners=1, servers=2, updates=10**6, log_every=100, out=tmp_path / "run")


def test_a_learner_that_dies_ends_a_synchronous_run_and_is_named(tmp_path: Path) -> None:
    task = trapped({2: (3, "die")})
    with pytest.raises(WorkerDied, match=r"process 2 of units \(1,0\).*signal 9.*") as caught:
        run(task, "hardsync", learners=2, updates=500, log_every=100, out=tmp_path / "run")
    assert "the channel of" in str(caught.value)
    lines = deliveries(tmp_path / "run")
    assert not any("gone" in line for line in lines)
    assert [line["learner"] for line in lines][:4] == [0, 1, 0, 1]
    assert len(lines) in (4, 5), "two whole updates, and what the other one made of the third"


def test_a_learner_that_stalls_is_named_when_the_others_have_waited_for_it(tmp_path: Path) -> None:
    task = trapped({2: (3, "stall")})
    with pytest.raises(
        DeadlineExceeded,
        match=r"^unit \(1,0\) is silent: unit server 0 waits for push of batch or update 2 from \(1,0\)",
    ):
        run(task, "asgd", learners=2, max_staleness=1, updates=10**6, log_every=100, deadline=8.0, out=tmp_path / "run")
    assert max(line["clock"] - line["version"] for line in deliveries(tmp_path / "run") if "learner" in line) <= 1


def test_an_observer_that_stalls_is_named_within_the_deadline_while_the_others_train_on() -> None:
    task = dataclasses.replace(trapped({3: (1, "stall")}), test=DATA)
    with pytest.raises(DeadlineExceeded, match=r"^the observer is silent: unit server 0 waits for \w+ to be taken"):
        run(task, "asgd", learners=2, updates=10**6, log_every=5, evaluate_every=0.1, deadline=5.0)


# What the starter makes of it, without processes


class Ended:
    """A process, as its starter sees it: what each look says, the last one for good."""

    def __init__(self, *codes: int | None) -> None:
        self.codes = list(codes)

    def poll(self) -> int | None:
        return self.codes.pop(0) if len(self.codes) > 1 else self.codes[0]


def watched(
    folder: Path,
    *processes: Ended,
    errors: Mapping[int, Exception] | None = None,
    met: bool = True,
    deadline: float = 0.2,
) -> BaseException | None:
    """Watch a server, two learners and an observer; return what the run ends with."""
    for rank, error in (errors or {}).items():
        (folder / f"error-{rank}").write_bytes(pickle.dumps((error, "its traceback")))
    if met:
        (folder / MET).touch()
    home = {server(0): 0, learner(0): 1, learner(1): 2, OBSERVER: 3}
    made = Workers(folder, processes, home, {0, 3}, 60.0, deadline)  # type: ignore[arg-type]
    return None if made.watch() else made.cause()


def test_who_hangs_in_its_end_is_not_waited_for_when_the_observer_has_ended(tmp_path: Path, capsys: Said) -> None:
    assert watched(tmp_path, Ended(None), Ended(0), Ended(0), Ended(None, 0)) is None
    said = capsys.readouterr().err
    assert said == "process 0 has not ended within 0.2 s of the run, and is ended\n"


class Touching(Ended):
    """An observer that shows that it lives, as often as it is looked at."""

    def __init__(self, file: Path, *codes: int | None) -> None:
        super().__init__(*codes)
        self.file, self.looks = file, 0

    def poll(self) -> int | None:
        self.looks += 1
        self.file.touch()
        os.utime(self.file, (self.looks, self.looks))
        return super().poll()


def test_an_observer_that_is_silent_when_all_others_have_ended_is_named(tmp_path: Path) -> None:
    found = watched(tmp_path, Ended(0), Ended(0), Ended(None), Ended(None))
    assert isinstance(found, DeadlineExceeded)
    assert str(found).startswith("the observer is silent: all others have done their work and ended, and for 0.2 s")


def test_an_observer_that_lives_may_have_much_to_do_when_all_others_have_ended(tmp_path: Path) -> None:
    observer = Touching(tmp_path / ALIVE, *[None] * 20, 0)  # looks that take five times the deadline
    assert watched(tmp_path, Ended(0), Ended(0), Ended(None), observer) is None
    assert observer.looks > 20


def test_an_observer_that_fails_when_all_others_have_ended_says_itself_why(tmp_path: Path) -> None:
    found = watched(
        tmp_path, Ended(0), Ended(0), Ended(0), Ended(None, None, 1), errors={3: OutputError("a full disk")}
    )
    assert isinstance(found, OutputError)


DESERTED = PeerLost("no learner is left (version: 3, updates: 9)")


def test_a_learner_may_end_badly_where_servers_and_the_observer_end_well(tmp_path: Path, capsys: Said) -> None:
    assert watched(tmp_path, Ended(None, 0), Ended(-9), Ended(None), Ended(None, None, 0)) is None
    said = capsys.readouterr().err
    assert said == "process 1 of units (0,0) ended without a word (killed by signal 9); the others go on\n"


def test_a_learner_that_ends_before_all_have_met_ends_the_run(tmp_path: Path) -> None:
    waits = {rank: PeerLost(f"rank {rank} waits") for rank in (0, 2, 3)}
    found = watched(tmp_path, Ended(None, 1), Ended(-9), Ended(1), Ended(1), errors=waits, met=False)
    assert isinstance(found, WorkerDied)
    assert "process 1 of units (0,0) ended without a word (killed by signal 9); then\n  rank 0 waits" in str(found)


def test_a_learner_whose_numbers_went_wrong_ends_the_run(tmp_path: Path) -> None:
    error = NonFiniteLoss("the loss is nan")
    found = watched(tmp_path, Ended(None, 1), Ended(None, 1), Ended(None, -9), Ended(None, 1), errors={1: error})
    assert isinstance(found, NonFiniteLoss)
    assert str(found) == "the loss is nan"
    assert found.__notes__ == ["in a worker process:\nits traceback"]


@pytest.mark.parametrize("last", [Ended(None, None, 1), Ended(None, None, None, 1)], ids=["at-once", "later"])
def test_the_error_of_the_learner_that_failed_first_is_the_cause_where_all_have_failed(
    last: Ended, tmp_path: Path
) -> None:
    errors = {0: DESERTED, 1: ValueError("first"), 2: KeyError("second"), 3: PeerLost("the channel broke")}
    found = watched(tmp_path, last, Ended(1), Ended(None, 1), Ended(None, None, 1), errors=errors)
    assert isinstance(found, ValueError)
    assert str(found) == "first"


def test_silent_deaths_are_named_where_all_learners_have_died(tmp_path: Path) -> None:
    errors = {0: DESERTED, 3: PeerLost("the channel broke")}
    found = watched(tmp_path, Ended(None, None, 1), Ended(-9), Ended(None, -9), Ended(None, None, 1), errors=errors)
    assert "process 1 of units (0,0) ended without a word (killed by signal 9)" in str(found)
    assert "no learner is left" in str(found)


def test_what_the_first_learner_said_is_the_cause_though_the_last_one_died_without_a_word(tmp_path: Path) -> None:
    errors = {0: DESERTED, 1: ValueError("first"), 3: PeerLost("the channel broke")}
    found = watched(tmp_path, Ended(None, 1), Ended(1), Ended(None, -9), Ended(None, None, 1), errors=errors)
    assert isinstance(found, ValueError)


@pytest.fixture
def _little_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "GRACE", 0.15)


@pytest.mark.usefixtures("_little_grace")
def test_an_observer_that_lives_deals_with_what_was_told_before_an_error(tmp_path: Path) -> None:
    observer = Touching(tmp_path / ALIVE, *[None] * 20, 1)  # looks that take more than its grace
    found = watched(tmp_path, Ended(1), Ended(None), Ended(None), observer, errors={0: ValueError("first")}, deadline=9)
    assert isinstance(found, ValueError)
    assert observer.codes == [1]


@pytest.mark.usefixtures("_little_grace")
def test_an_observer_that_does_not_end_is_not_waited_for_beyond_the_deadline(tmp_path: Path) -> None:
    found = watched(
        tmp_path, Ended(1), Ended(None), Ended(None), Touching(tmp_path / ALIVE, None), errors={0: ValueError("first")}
    )
    assert isinstance(found, ValueError)


@pytest.mark.usefixtures("_little_grace")
def test_an_observer_that_shows_no_life_is_not_waited_for_after_an_error(tmp_path: Path) -> None:
    processes = Ended(1), Ended(None), Ended(None), Ended(None)
    found = watched(tmp_path, *processes, errors={0: ValueError("first")}, deadline=float("inf"))
    assert isinstance(found, ValueError)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
