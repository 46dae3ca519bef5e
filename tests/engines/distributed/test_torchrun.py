"""Processes that another launcher started must agree on what they train."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from threading import enumerate as enumerate_threads

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore

from stalegrid.engines.distributed.torchrun import joined
from tests.engines.distributed.forked import together
from tests.engines.distributed.test_failures import MARK, wait_until

SCRIPT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset, random_split
import stalegrid

x = torch.arange(64.0).view(64, 1)
data, _ = random_split(TensorDataset(x, (x[:, 0] > 32).long()), [48, 16])
stalegrid.train(
    nn.Sequential(nn.Linear(1, 4), nn.ReLU(), nn.Linear(4, 2)), data, loss=nn.CrossEntropyLoss(), groups=1, stages=2,
    batch_size=8, updates=4, optimizer=lambda p: torch.optim.SGD(p, lr=0.1), quiet=True)
"""


def test_processes_that_split_the_data_differently_are_refused(tmp_path: Path) -> None:
    script = tmp_path / "split.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200)
    assert made.returncode != 0
    assert "processes have different data (process 0 and processes: [1])" in made.stderr


def marked(text: bytes) -> set[int]:
    """Return the processes that were started here, by anybody, and have a text in their command."""
    found = set()
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            ours = f"{MARK}={os.getpid()}\0".encode() in path.with_name("environ").read_bytes()
            if ours and text in path.read_bytes():
                found.add(int(path.parent.name))
        except OSError:
            continue  # ended meanwhile
    return found


LEFT = """
import os
import signal
import sys

import torch
from torch import nn
from torch.utils.data import TensorDataset

import stalegrid


class Leave(stalegrid.Callback):
    stops = False

    def on_report(self, record):
        if record["update"] == 20:
            os.kill(os.getppid(), signal.SIGTERM)


torch.manual_seed(0)
data = TensorDataset(torch.randn(64, 4), torch.arange(64) % 2)
served = {"method": "softsync", "servers": stalegrid.ServerSettings(learners=2)}
options = served if sys.argv[1] == "servers" else {"groups": 1, "stages": 3}
model = nn.Sequential(nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2))
stalegrid.train(
    model, data, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.01), batch_size=4,
    updates=10**6, output=stalegrid.OutputSettings(log_every=20, evaluate_every=0), out="run", quiet=True,
    checkpoint=10**6, callbacks=[Leave()], **options)
"""


@pytest.mark.thorough
@pytest.mark.parametrize("what", ["servers", "grid"])
def test_a_signal_to_torchrun_lets_the_run_leave_though_nothing_was_evaluated_yet(what: str, tmp_path: Path) -> None:
    (tmp_path / "left.py").write_text(LEFT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=3", "left.py", what]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", MARK: str(os.getpid())}
    done = subprocess.run(
        command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.stderr.count("Interrupted: the run was asked to leave, and has (checkpoint: ") == 3, done.stderr[-3000:]
    (manifest,) = (tmp_path / "run" / "checkpoints").glob("*/manifest.json")
    assert 20 < int(manifest.parent.name) < 10**6
    assert wait_until(lambda: not marked(b"left.py"), 30)


@pytest.mark.thorough
def test_processes_end_with_torchrun_though_it_was_killed(tmp_path: Path) -> None:
    script = tmp_path / "endless.py"
    out = tmp_path / "run"
    alike = SCRIPT.replace("import stalegrid", "import stalegrid\ntorch.manual_seed(0)")
    script.write_text(alike.replace("updates=4", f"updates=10**9, out={str(out)!r}"))
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", MARK: str(os.getpid())}
    with subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE) as launcher:
        try:
            assert wait_until((out / "metrics.jsonl").exists, 100)
            assert len(marked(b"endless.py")) == 3
        finally:
            launcher.kill()
    assert wait_until(lambda: not marked(b"endless.py"), 30)


def test_processes_end_with_torchrun_though_the_script_made_their_group(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        os.environ["TORCHELASTIC_RUN_ID"] = "a run"
        with joined(10.0):
            return str([thread.name for thread in enumerate_threads()])

    assert "watch torchrun" in together(tmp_path, 1, act)[0]


def test_a_group_of_the_script_that_cannot_carry_tensors_of_the_cpu_is_refused(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        dist.destroy_process_group()
        dist.init_process_group("cuda:fake", store=FakeStore(), rank=0, world_size=2)
        with joined(10.0):
            return "joined"

    told = "ConfigError: the script's process group has no Gloo for the CPU (backends: cuda:fake); let it call"
    assert together(tmp_path, 1, act)[0].startswith(told)


def test_processes_that_a_script_has_connected_cannot_be_looked_at_as_they_meet(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        with joined(10.0, lambda *of: None):
            return "joined"

    told = (
        "ConfigError: processes that a script has connected do not meet any more (init_process_group); leave that out"
    )
    assert together(tmp_path, 1, act)[0].startswith(told)


def test_leftovers_of_torchrun_are_recognised_and_the_wait_is_ended_by_a_signal(tmp_path: Path) -> None:
    script = tmp_path / "alone.py"
    script.write_text(SCRIPT)
    left = {"RANK": "0", "WORLD_SIZE": "4", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    with subprocess.Popen([sys.executable, str(script)], env={**os.environ, **left}, stderr=subprocess.PIPE) as run:
        assert run.stderr is not None
        line = run.stderr.readline().decode()
        run.send_signal(signal.SIGTERM)
        run.communicate(timeout=60)
    assert line.startswith("stalegrid: process 0 waits for 3 others at 127.0.0.1:0 (interface: lo")
    assert "RANK, WORLD_SIZE, MASTER_ADDR, MASTER_PORT in the environment say; unset them" in line
    assert run.returncode == 128 + signal.SIGTERM


LEAVING = """
from pathlib import Path

import pytest
import stalegrid
import torch
import torch.distributed as dist

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
weights = torch.nn.Parameter(torch.ones(1))
torch.optim.SGD([weights], lr=0.1)
names = lambda: [(task / "comm").read_text().strip() for task in Path("/proc/self/task").iterdir()]
print(sum("gloo" in name for name in names()))
dist.destroy_process_group()
print(sum("gloo" in name for name in names()))
"""


@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="threads of a process are listed by Linux only")
def test_a_process_group_that_is_destroyed_leaves_no_threads_which_could_abort_the_interpreter_at_its_end() -> None:
    made = subprocess.run([sys.executable, "-c", LEAVING], capture_output=True, text=True, timeout=200, check=True)
    before, after = map(int, made.stdout.split())
    assert before > 0
    assert after == 0
