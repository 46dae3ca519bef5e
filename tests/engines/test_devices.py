"""The processes of a launcher measure a model together, and train as the table says."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.engines.devices import _links
from stalegrid.engines.distributed.links import Link as Measured
from stalegrid.engines.distributed.survey import Survey, Surveyed
from stalegrid.errors import EngineError
from stalegrid.timing.columns import DeviceTable, read_costs
from stalegrid.timing.links import Link
from stalegrid.written.kept import read_yaml
from tests.namespaces import end, network, start

SCRIPT = """
import sys
from stalegrid.cli import main

for command in sys.argv[1:]:
    print("ended with", main(command.split()), flush=True)
"""
OURS = "--model mlp --data digits --batch-size 32"
PROFILE = f"profile {OURS} --parts 4"
TRAIN = f"train {OURS} --method pipedream --groups 1 --stages 2 --updates 4 --costs"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "commands.py").write_text(SCRIPT)
    return tmp_path


def launched(folder: Path, *commands: str) -> "subprocess.CompletedProcess[str]":
    """Run commands in two processes of torchrun."""
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "commands.py", *commands]
    return subprocess.run(
        [sys.executable, *command],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=200,
    )


def slowed(table: DeviceTable, *times: float) -> DeviceTable:
    """Return the same parts with times that are given: forward and backward take a device so many ms."""
    columns = (
        replace(
            table.columns[0],
            parts=tuple(replace(part, forward=t, backward=t, update=0.0, fixed=0.0) for part in table.parts),
            handling=0.0,
        )
        for t in times
    )
    return replace(table, columns=tuple(columns))


@pytest.mark.thorough
def test_two_processes_write_one_table_and_train_as_it_says(
    folder: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    done = launched(folder, f"{PROFILE} --out costs.yaml", f"{PROFILE} --out costs.yaml", f"{PROFILE} --copies 2")
    assert done.stdout.count("ended with 0") == 2, done.stderr
    assert done.stdout.count("ended with 2") == 4, done.stderr
    assert done.stdout.count("costs are in costs.yaml") == 1, "one process tells and writes"
    # The first one refuses what it cannot write, and both end.
    assert done.stderr.count("the file exists, or its folder does not (out: costs.yaml)") == 2
    assert done.stderr.count("each by itself (copies: 2); leave it out") == 2
    found = read_costs(folder / "costs.yaml")
    assert isinstance(found, DeviceTable)
    assert found.links == {}
    assert len(set(found.hosts)) == 1
    assert len(found.columns) == 2
    assert 2 <= len(found.parts) <= 4
    assert found.columns[0] != found.columns[1], "each has measured by itself"
    assert all(part.forward > 0 for column in found.columns for part in column.parts)

    slowed(found, 3.0, 1.0).write(folder / "slow.yaml")
    emulated = launched(folder, f"{TRAIN} slow.yaml --devices.emulate true --out two")
    assert emulated.stdout.count("ended with 0") == 2, emulated.stderr
    first = found.parts[1].name
    assert f"cut for unequal devices at {first}: " in emulated.stdout
    assert emulated.stdout.count("times as fast as cut for equal ones") == 1
    assert read_yaml(folder / "two" / "config.yaml")["grid"]["cuts"] == [first]
    assert main([*TRAIN.split(), "slow.yaml", "--engine", "simulator", "--out", "one"]) == 0
    assert f"cut for unequal devices at {first}: " in capfd.readouterr().out
    assert (folder / "two/model.safetensors").read_bytes() == (folder / "one/model.safetensors").read_bytes()


@pytest.mark.thorough
def test_hosts_are_told_apart_and_the_ways_between_them_are_in_the_table(folder: Path) -> None:
    with network(2) as hosts:
        where = {"WORLD_SIZE": "2", "MASTER_ADDR": hosts[0].address, "MASTER_PORT": "29400"}
        running = [
            start(host, f"host{rank}", ["commands.py", f"{PROFILE} --out costs.yaml"], folder, RANK=str(rank), **where)
            for rank, host in enumerate(hosts)
        ]
        try:
            said = [process.communicate(timeout=200)[0] for process in running]
        finally:
            end(running)
    assert all("ended with 0" in text for text in said), said
    found = read_costs(folder / "costs.yaml")
    assert isinstance(found, DeviceTable)
    assert found.hosts == ("host0", "host1")
    assert found.links.keys() == {("host0", "host1"), ("host1", "host0")}
    assert "host0 > host1: " in said[0]


def surveyed(*names: str, links: dict[tuple[int, int], Measured | str]) -> Survey:
    return Survey([Surveyed(name, {}, 1) for name in names], links, list(range(len(names))))


def test_a_measured_link_is_one_of_the_table() -> None:
    found = surveyed("a", "b", links={(0, 1): Measured(1.5, 100.0, 9.0), (1, 0): Measured(0.5, 50.0, -9.0)})
    assert _links(found) == {("a", "b"): Link(1.5, 100.0), ("b", "a"): Link(0.5, 50.0)}


def test_hosts_without_a_way_between_them_are_named() -> None:
    found = surveyed("a", "b", links={(0, 1): Measured(1.5, 100.0, 0.0), (1, 0): "timed out"})
    with pytest.raises(EngineError, match=r"do not reach each other: b -> a \(timed out\); stalegrid doctor"):
        _links(found)
