"""Libraries are loaded once, in a process that forks workers; these are as if each had been started on its own."""

import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.engines.distributed import warm
from stalegrid.engines.distributed.forking import serve
from stalegrid.engines.distributed.interfaces import loopback
from stalegrid.engines.distributed.job import Job, write_job
from stalegrid.engines.distributed.private import make_secret, private_folder
from stalegrid.engines.distributed.warm import KEPT, Reports, Worker, forked
from stalegrid.errors import EngineError, WorkerDied
from stalegrid.observe.records import Nowhere
from stalegrid.plans.settling import make_plan
from tests.cases import make_settings, make_task
from tests.engines.distributed.test_failures import MARK, processes, wait_until, workers

DATA = TensorDataset(torch.linspace(-1, 1, 256).view(64, 4), torch.arange(64) % 2)


@pytest.fixture(scope="module", autouse=True)
def _marked() -> Iterator[None]:
    """Mark what is started here; in the end nobody is left."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(MARK, str(os.getpid()))
        yield
        KEPT.end()
        assert wait_until(lambda: not processes(), 30), "one that still loads sees its end when it has loaded"


@pytest.fixture(autouse=True)
def _no_worker_is_left() -> Iterator[None]:
    yield
    assert not workers()


def train(loss: Callable[..., torch.Tensor] = nn.functional.cross_entropy, model: nn.Module | None = None) -> None:
    stalegrid.train(
        nn.Linear(4, 2) if model is None else model,
        DATA,
        loss=loss,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        method="sgd",
        batch_size=4,
        updates=1,
        quiet=True,
    )


def seen(ask: Callable[[], Any], folder: Path) -> Any:
    """Return what a worker sees."""
    file = folder / "seen"
    here = os.getpid()

    def loss(outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        if os.getpid() != here:
            file.write_text(json.dumps(ask()))
        return nn.functional.cross_entropy(outputs, targets)

    train(loss)
    return json.loads(file.read_text())


def the_warm_one() -> int:
    (found,) = processes().keys() - workers()
    return found


def test_several_runs_share_one_process_that_has_no_other_thread_when_it_forks(tmp_path: Path) -> None:
    def ask() -> tuple[int, int]:
        return os.getppid(), len(os.listdir(f"/proc/{os.getppid()}/task"))

    first, threads = seen(ask, tmp_path)
    assert threads == 1
    assert seen(ask, tmp_path) == [first, 1]


UNTOUCHED = """
import torch

def touch(*_, **__):
    raise RuntimeError("a GPU was touched")

for name in ("init", "_lazy_init", "is_available", "device_count", "current_device", "get_device_properties"):
    setattr(torch.cuda, name, touch)
torch.accelerator.is_available = torch.accelerator.current_accelerator = touch
import torch._dynamo
import stalegrid.engines.distributed.forking
"""


def test_loading_touches_no_gpu() -> None:
    made = subprocess.run([sys.executable, "-c", UNTOUCHED], capture_output=True, text=True, timeout=100)
    assert made.returncode == 0, made.stderr


def test_workers_have_no_open_file_of_another_run(tmp_path: Path) -> None:
    def files() -> list[str]:
        links = [Path(f"/proc/self/fd/{number}") for number in os.listdir("/proc/self/fd")]
        names = [link.readlink().name.split(":")[0] for link in links if link.is_symlink()]
        return sorted("the job's" if name.endswith("(deleted)") else name for name in names)

    alone = seen(files, tmp_path)
    with endless():
        assert seen(files, tmp_path) == alone


def test_runs_of_several_threads_at_once_share_it() -> None:
    with ThreadPoolExecutor(3) as pool:
        for made in [pool.submit(train) for _ in range(3)]:
            made.result()
    train()
    assert len(processes()) == 1


def test_what_a_process_takes_from_its_starter_is_that_of_the_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def ask() -> dict[str, Any]:
        mask = os.umask(0)
        os.umask(mask)
        return {
            "at its start": "OMP_NUM_THREADS=3" in Path("/proc/self/environ").read_text().split("\0"),
            "path": "PATH" in os.environ,
            "folder": os.getcwd(),
            "flags": sys.warnoptions,
            "mask": mask,
            "cores": sorted(os.sched_getaffinity(0)),
            "core": resource.getrlimit(resource.RLIMIT_CORE)[0],
        }

    before, cores, limits = seen(ask, tmp_path), os.sched_getaffinity(0), resource.getrlimit(resource.RLIMIT_CORE)
    due = {
        "at its start": True,
        "path": False,
        "folder": "/",
        "flags": ["ignore"],
        "mask": 0o027,
        "cores": [min(cores)],
        "core": 0 if limits[0] else 4096,
    }
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv("PATH")
    monkeypatch.chdir("/")
    monkeypatch.setattr(sys, "warnoptions", ["ignore"])
    mask = os.umask(0o027)
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0 if limits[0] else 4096, limits[1]))
        os.sched_setaffinity(0, {min(cores)})
        assert seen(ask, tmp_path) == due
    finally:
        os.umask(mask)
        os.sched_setaffinity(0, cores)
        resource.setrlimit(resource.RLIMIT_CORE, limits)
    assert not {name for name, value in due.items() if before[name] == value} - {"cores"}
    assert wait_until(lambda: len(processes()) == 1, 30), "the one that does not fit has ended"


def test_a_variable_that_nothing_reads_when_it_is_loaded_is_that_of_the_run_too(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train()
    first = the_warm_one()
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", "\udcff elsewhere")
    assert seen(lambda: os.environ["TORCHINDUCTOR_CACHE_DIR"], tmp_path) == "\udcff elsewhere"
    assert the_warm_one() == first


def test_the_current_folder_is_that_of_the_run_too_whatever_becomes_of_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    train()
    first = the_warm_one()
    monkeypatch.chdir(tmp_path)
    assert seen(os.getcwd, tmp_path) == str(tmp_path)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert seen(lambda: os.stat(".").st_nlink, tmp_path) == 0
    assert the_warm_one() == first


def test_modules_are_looked_for_where_the_starter_looks_now(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> str:
        import a_module_of_now  # type: ignore[import-not-found]

        return str(a_module_of_now.WHICH)

    found = []
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a_module_of_now.py").write_text(f"WHICH = {name!r}")
        monkeypatch.syspath_prepend(tmp_path / name)
        found.append((seen(ask, tmp_path), the_warm_one()))
    assert [which for which, _ in found] == ["one", "other"]
    assert found[0][1] == found[1][1]


def test_output_goes_where_that_of_the_starter_goes_now(capfd: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert seen(lambda: print("first") or sys.stdout.flush(), tmp_path) is None
    assert capfd.readouterr().out == "first\n"
    out = os.dup(1)
    with (tmp_path / "out").open("w") as file:
        os.dup2(file.fileno(), 1)
        try:
            seen(lambda: print("second") or sys.stdout.flush(), tmp_path)
        finally:
            os.dup2(out, 1)
            os.close(out)
    assert (tmp_path / "out").read_text() == "second\n"
    assert capfd.readouterr().out == ""


class Drawing(nn.Linear):
    """Writes what every process that gets it draws."""

    def __init__(self, folder: Path) -> None:
        super().__init__(4, 2)
        self.folder = folder

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        (self.folder / str(os.getpid())).write_text(str(np.random.random()))


def test_workers_do_not_share_generators_of_random_numbers(tmp_path: Path) -> None:
    train(model=Drawing(tmp_path))
    drawn = [path.read_text() for path in tmp_path.iterdir() if path.name != str(os.getpid())]
    assert len(drawn) == len(set(drawn)) == 2


@contextmanager
def endless() -> Iterator[list[Worker]]:
    """Run a worker and an observer that only their starter ends."""
    task, settings = make_task(scheduler=None), make_settings(1, 1, method="sgd", updates=10**9)
    made = Job(task, make_plan(task, settings), settings.engine, False, False, Nowhere, Path("run"))
    with private_folder() as folder, write_job(made) as file:
        make_secret(folder)
        with forked(folder, 2, loopback(), file.fileno()) as found:
            assert wait_until((folder / "met").exists, 60)
            assert [worker.poll() for worker in found] == [None, None]
            yield found


def test_a_run_ends_though_workers_of_another_were_forked_later() -> None:
    with endless() as first:
        older = workers()
        with endless() as second:
            assert len(workers()) == 4
            os.kill(min(older), signal.SIGUSR1)
            assert wait_until(lambda: first[0].poll() == -signal.SIGUSR1 or first[1].poll() == -signal.SIGUSR1, 30)
            assert [worker.poll() for worker in second] == [None, None]
    assert not workers()


def test_workers_of_an_older_run_are_ended_while_later_ones_go_on() -> None:
    first, second = endless(), endless()
    first.__enter__()
    older = workers()
    found = second.__enter__()
    first.__exit__(None, None, None)
    assert not workers() & older
    assert len(workers()) == 2
    assert [worker.poll() for worker in found] == [None, None]
    second.__exit__(None, None, None)
    assert not workers()


def state_of(process: int) -> str:
    return Path(f"/proc/{process}/stat").read_text().rsplit(")", 1)[1].split()[0]


def test_workers_see_the_end_of_their_starter_by_themselves(tmp_path: Path) -> None:
    KEPT.end()
    ready = tmp_path / "ready"
    starter = os.fork()
    if not starter:
        signal.alarm(100)
        with endless(), endless():
            ready.touch()
            signal.pause()
    assert wait_until(ready.exists, 60)
    (mother,) = processes().keys() - workers()
    found = workers()
    os.kill(mother, signal.SIGSTOP)
    os.kill(starter, signal.SIGKILL)
    os.waitpid(starter, 0)
    assert len(found) == 4
    assert wait_until(lambda: all(state_of(worker) == "Z" for worker in found), 30)
    os.kill(mother, signal.SIGCONT)
    assert wait_until(lambda: not processes(), 30)


def test_a_warm_process_that_dies_ends_the_run_and_all_workers_and_the_next_run_has_another() -> None:
    with endless() as found:
        os.kill(the_warm_one(), signal.SIGKILL)
        told = r"^the process that starts workers ended without a word \(killed by signal 9\)$"
        with pytest.raises(WorkerDied, match=told):
            wait_until(lambda: found[0].poll() is not None, 30)
    assert wait_until(lambda: not processes(), 30)
    train()


def test_a_warm_process_that_cannot_load_what_it_needs_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    KEPT.end()
    monkeypatch.setattr(sys, "path", [])
    told = "^a worker process cannot load what it needs: ModuleNotFoundError: No module named 'torch'$"
    with (
        (tmp_path / "job").open("w") as job,
        forked(tmp_path, 1, "lo", job.fileno()) as found,
        pytest.raises(EngineError, match=told),
    ):
        wait_until(lambda: found[0].poll() is not None, 60)
    assert not capfd.readouterr().err


def test_a_fork_that_fails_is_told_with_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> NoReturn:
        raise OSError(errno.EAGAIN, "Resource temporarily unavailable")

    ours, theirs = socket.socketpair()
    child = os.fork()
    if not child:
        signal.alarm(100)
        ours.close()
        os.fork = full
        serve(theirs)
    theirs.close()
    reports, others = socket.socketpair()
    reports.sendall(json.dumps({"folder": str(tmp_path), "size": 2, "environment": {}, "path": []}).encode() + b"\n")
    with (tmp_path / "job").open("w") as job, reports, ours:
        with others:
            socket.send_fds(ours, [b"o"], [others.fileno(), *[job.fileno()] * 5])
        found = Reports(reports, None)  # type: ignore[arg-type]
        told = r"^a worker process cannot be started: Resource temporarily unavailable; close .*\(ulimit -a\)"
        with pytest.raises(EngineError, match=told):
            wait_until(lambda: found.read(), 30)
        found.end()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert not tmp_path.exists(), "the folder of the order is removed when all have ended"


@pytest.mark.parametrize("free", range(6))
def test_too_few_file_handles_are_told_in_one_error(free: int) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    opened = set(map(int, os.listdir("/proc/self/fd")))
    unused = [number for number in range(soft) if number not in opened]
    folder = os.open("/", os.O_RDONLY)
    resource.setrlimit(resource.RLIMIT_NOFILE, (unused[free], hard))
    try:
        told = r"^a worker process cannot be started: Too many open files; close"
        with pytest.raises(EngineError, match=told), forked(Path("/none"), 1, "lo", folder):
            pass
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        os.close(folder)


@pytest.mark.thorough
def test_a_process_that_was_forked_from_the_starter_has_a_warm_one_of_its_own() -> None:
    train()
    first = the_warm_one()
    child = os.fork()
    if not child:
        signal.alarm(100)
        try:
            train()
            KEPT.end()
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    train()
    assert the_warm_one() == first


SCRIPT = """
import torch, stalegrid
from torch import nn
from torch.utils.data import TensorDataset

data = TensorDataset(torch.ones(8, 4), torch.arange(8) % 2)
for _ in range(2):
    stalegrid.train(nn.Linear(4, 2), data, loss=lambda o, t: nn.functional.cross_entropy(o, t), method="sgd",
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1), batch_size=4, updates=1, quiet=True)
print("trained")
"""


@pytest.mark.thorough
def test_a_script_of_standard_input_trains_and_leaves_nobody_and_no_warning() -> None:
    before = processes()
    command = [sys.executable, "-W", "error::ResourceWarning", "-"]
    made = subprocess.run(command, input=SCRIPT, capture_output=True, text=True, timeout=100)
    assert (made.returncode, made.stdout, made.stderr) == (0, "trained\n", "")
    assert processes() == before


@pytest.mark.thorough
def test_workers_of_a_starter_that_blocks_the_signal_of_their_ends_are_seen_to_end() -> None:
    blocked = f"import signal\nsignal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])\n{SCRIPT}"
    before = processes()
    with subprocess.Popen([sys.executable, "-c", blocked], stdout=subprocess.PIPE, text=True) as script:
        try:
            assert script.communicate(timeout=100)[0] == "trained\n"
        finally:
            script.kill()
            for left in processes().keys() - before.keys():  # a warm one that sees no end would stay for ever
                os.kill(left, signal.SIGKILL)


def test_loading_begins_before_the_run_is_planned(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Planned(Exception):
        pass

    def plan(*_: object, **__: object) -> NoReturn:
        assert wait_until(lambda: len(processes()) == 1, 30)
        begun.append(the_warm_one())
        raise Planned

    KEPT.end()
    monkeypatch.setattr("stalegrid.runs.here.planned", plan)
    with pytest.raises(Planned):
        train()
    assert len(begun) == 1


def test_what_cannot_be_started_yet_is_told_by_who_needs_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> NoReturn:
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    KEPT.end()
    monkeypatch.setattr(warm.subprocess, "Popen", refused)
    KEPT.begin()
    with pytest.raises(EngineError, match=r"^a worker process cannot be started: Cannot allocate memory; close"):
        train()
