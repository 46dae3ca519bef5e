"""The recipe of docs/two-machines.md, on hosts that are network namespaces; and its job of a scheduler."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stalegrid.cli import main
from tests.engines.distributed.test_failures import wait_until
from tests.namespaces import cut_off, end, network, start

pytestmark = pytest.mark.thorough

PAGE = (Path(__file__).parents[1] / "docs" / "two-machines.md").read_text()
(RUN,) = re.findall(r"```yaml\n(.*?)```", PAGE, flags=re.DOTALL)
FIRST = "10.0.0.1"
"""The address of the first host on the page."""

DEADLINE = 10
QUICK = f"--engine.deadline {DEADLINE} --output.log-every 1"
LONG = "--epochs 500 --out cut"
RECIPE = """
import sys
from stalegrid.cli import main

for command in sys.argv[1:]:
    status = main(command.split())
    print("ended with", status, flush=True)
sys.exit(status)
"""
END = 40.0
"""Seconds, beside the deadline, in which processes end on a busy machine, the launcher's own included."""

ALONE = "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what is trained."""
    (tmp_path / "run.yaml").write_text(RUN)
    (tmp_path / "recipe.py").write_text(RECIPE)
    return tmp_path


def test_two_hosts_are_looked_at_and_train_until_a_link_is_down(folder: Path) -> None:
    found = re.findall(r"^torchrun (--nnodes 2 --node-rank 0 .*) -m stalegrid (.*)$", PAGE, flags=re.MULTILINE)
    assert [command.split()[0] for _, command in found] == ["doctor", "train"]
    (launched,) = {options for options, _ in found}
    doctor, train = (command for _, command in found)
    # One start of the processes for all, since it takes most of the time.
    commands = [f"{command} {QUICK}" for command in (doctor, train, f"{train} {LONG}")]
    with network(2) as hosts:
        running = []
        for rank, host in enumerate(hosts):
            options = launched.replace(FIRST, hosts[0].address).replace("--node-rank 0", f"--node-rank {rank}")
            command = ["-m", "torch.distributed.run", *options.split(), "recipe.py", *commands]
            running.append(start(host, f"host{rank}", command, folder))
        try:
            lines = folder / "cut" / "metrics.jsonl"
            going = wait_until(lambda: lines.exists() and lines.read_text().count("\n") > 2, 200)
            cut_off(hosts[1])
            said = [process.communicate(timeout=DEADLINE + END)[0] for process in running]
        finally:
            end(running)
    assert going, "\n".join(said)
    assert [process.returncode for process in running] == [1, 1]
    for text in said:
        assert text.count("ended with 0") == 4, text
    assert "these 2 hosts can run it" in said[0]
    assert re.search(r"host0 -> host1: [\d.e-]+ ms, [\d.]+ Mbit/s", said[0])
    assert re.search(r"host1 -> host0: [\d.e-]+ ms, [\d.]+ Mbit/s", said[0])
    # Each host names those that it hears no more of, and where they are.
    assert re.search(r"DeadlineExceeded: unit \(1,\d\) is silent: .*; process [23] is on host host1", said[0]), said[0]
    assert re.search(r"DeadlineExceeded: unit \(0,\d\) is silent: .*; process [01] is on host host0", said[1]), said[1]
    one = folder / "one"
    assert main(["train", "--config", str(folder / "run.yaml"), "--engine", "simulator", "--out", str(one)]) == 0
    assert (folder / "runs/two/model.safetensors").read_bytes() == (one / "model.safetensors").read_bytes()


def test_hosts_without_a_way_between_them_are_named_before_anything_is_trained(folder: Path) -> None:
    with network(3) as hosts:
        lost = ["route", "add", "unreachable", f"{hosts[2].address}/32"]
        subprocess.run(["ip", "-n", hosts[1].namespace, *lost], check=True)
        where = {"WORLD_SIZE": "3", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29400"}
        commands = ["doctor", "train --groups 3 --stages 1 --updates 2"]
        running = [
            start(host, f"host{rank}", ["recipe.py", *commands], folder, RANK=str(rank), **where)
            for rank, host in enumerate(hosts)
        ]
        try:
            said = [process.communicate(timeout=200)[0] for process in running]
        finally:
            end(running)
    assert "change: host1: no way to host2 at 10.99.0.3 (No route to host); let firewalls" in said[0]
    for text in said:
        assert text.count("ended with 1") == 2, text
        assert "EngineError: hosts do not reach each other: host1 -> host2 at 10.99.0.3 (No route to host); " in text


def test_who_does_not_come_and_a_first_host_that_is_not_reached_are_told_within_the_deadline(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in zip(ALONE, ("0", "2", "127.0.0.1", "0"), strict=True):
        monkeypatch.setenv(name, value)
    assert main(["doctor", "--engine.deadline", "0.5"]) == 1
    assert "DeadlineExceeded: process 1 of 2 has not come: process 0 waits at 127.0.0.1:0" in capsys.readouterr().err
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("MASTER_PORT", "9")
    assert main(["doctor", "--engine.deadline", "0.5"]) == 1
    told = capsys.readouterr().err
    assert "nothing answers at 127.0.0.1:9, for 0.5 s (127.0.0.1: Connection refused)" in told


SRUN = """#!{python}
# Starts the tasks of a job, and sends them SIGTERM when it is time, which is after the second checkpoint.
import os, signal, subprocess, sys, time
from pathlib import Path

tasks = [
    subprocess.Popen(sys.argv[1:], env={{**os.environ, "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i)}})
    for i in range(int(os.environ["SLURM_NTASKS"]))
]
while not Path("runs/job/checkpoints/000000004").exists() and all(task.poll() is None for task in tasks):
    time.sleep(0.05)
for task in tasks:
    task.send_signal(signal.SIGTERM)
sys.exit(max(task.wait() for task in tasks))
"""
SCONTROL = """#!/bin/sh
echo "$@" >> asked
[ "$1" = show ] && echo 127.0.0.1 || true
"""
STALEGRID = """#!/bin/sh
exec {python} -m stalegrid "$@"
"""


def test_the_job_of_a_scheduler_saves_itself_when_its_time_is_over_and_goes_back_into_the_queue(folder: Path) -> None:
    (script,) = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE, flags=re.DOTALL)
    assert "--checkpoint.minutes 10 " in script
    quick = f"--checkpoint 2 --epochs 500 --grid.groups 1 {QUICK} "
    (folder / "job").write_text(script.replace("--checkpoint.minutes 10 ", quick))
    (programs := folder / "bin").mkdir()
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL), ("stalegrid", STALEGRID)):
        (programs / name).write_text(text.format(python=sys.executable))
        (programs / name).chmod(0o755)
    (folder / ".stalegrid-secret").write_text("a long random text of a test")
    job = {"SLURM_JOB_NODELIST": "a", "SLURM_JOB_ID": str(os.getpid()), "SLURM_NTASKS": "2", "HOME": str(folder)}
    path = f"{programs}:{os.environ['PATH']}"
    environment = {**os.environ, **job, "PATH": path, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        ["bash", "job"], env=environment, cwd=folder, capture_output=True, text=True, timeout=200, check=False
    )
    assert made.returncode == os.EX_TEMPFAIL, made.stderr
    assert (folder / "asked").read_text().splitlines() == ["show hostnames a", f"requeue {os.getpid()}"]
    assert made.stderr.count("it goes on to the bit with") == 2
