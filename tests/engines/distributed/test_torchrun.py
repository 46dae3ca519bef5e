"""Processes that another launcher started must agree on what they train."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

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
