"""The recipe of docs/two-machines.md, on hosts that are network namespaces: look, train, lose a link."""

import re
import subprocess
from pathlib import Path

import pytest

from stalegrid.cli import main
from tests.engines.distributed.test_failures import wait_until
from tests.namespaces import cut_off, end, network, start

DEADLINE = 10
RUN = f"--groups 2 --stages 2 --batch-size 8 --engine.deadline {DEADLINE} --output.log-every 1"
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


def test_two_hosts_are_looked_at_and_train_until_a_link_is_down(tmp_path: Path) -> None:
    (tmp_path / "recipe.py").write_text(RECIPE)
    # One start of the processes for all, since it takes most of the time.
    commands = [f"doctor {RUN}", f"train {RUN} --updates 6 --out whole", f"train {RUN} --updates 1000000000 --out cut"]
    with network(2) as hosts:
        places = ["--nnodes=2", "--nproc-per-node=2", f"--master-addr={hosts[0].address}", "--master-port=29400"]
        running = [
            start(
                host,
                f"host{rank}",
                ["-m", "torch.distributed.run", *places, f"--node-rank={rank}", "recipe.py", *commands],
                tmp_path,
            )
            for rank, host in enumerate(hosts)
        ]
        try:
            lines = tmp_path / "cut" / "metrics.jsonl"
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
    assert main(["train", *RUN.split(), "--updates", "6", "--engine", "simulator", "--out", str(tmp_path / "one")]) == 0
    assert (tmp_path / "whole" / "model.safetensors").read_bytes() == (tmp_path / "one/model.safetensors").read_bytes()


def test_hosts_without_a_way_between_them_are_named_before_anything_is_trained(tmp_path: Path) -> None:
    with network(3) as hosts:
        lost = ["route", "add", "unreachable", f"{hosts[2].address}/32"]
        subprocess.run(["ip", "-n", hosts[1].namespace, *lost], check=True)
        where = {"WORLD_SIZE": "3", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29400"}
        (tmp_path / "recipe.py").write_text(RECIPE)
        commands = ["doctor", "train --groups 3 --stages 1 --updates 2"]
        running = [
            start(host, f"host{rank}", ["recipe.py", *commands], tmp_path, RANK=str(rank), **where)
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
