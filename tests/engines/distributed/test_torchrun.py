"""Processes that another launcher started must agree on what they train."""

import os
import subprocess
import sys
from pathlib import Path

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
