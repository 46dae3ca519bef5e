"""Whoever finds the ports of a run, as any user of the host can, changes no number and stops no run."""

import os
import subprocess
import sys
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.programs.settings import GridSettings
from tests.engines.distributed.test_failures import MARK, wait_until, workers

LISTENING = "0A"  # a socket's state in /proc/net/tcp

DATA = TensorDataset(torch.linspace(-1, 1, 256).view(64, 4), torch.arange(64) % 2)


class Gate(nn.Module):
    """A layer that lets nothing through from its n-th forward on, until a file is there; 0 for always open.

    Args:
        folder: of the files: ``waiting`` says that it is closed, ``open`` opens it.
        when: n.
    """

    def __init__(self, folder: Path, when: int) -> None:
        super().__init__()
        self.folder, self.when, self.seen = folder, when, 0

    def forward(self, x: Tensor) -> Tensor:
        if float(x.detach().sum()) < float("inf"):  # a value: not to be traced
            self.seen += 1
        if self.seen == self.when:
            (self.folder / "waiting").touch()
            assert wait_until((self.folder / "open").exists, 20)
        return x


def train(folder: Path, when: int, engine: str) -> dict[str, Tensor]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), Gate(folder, when), nn.Linear(4, 2))
    result = stalegrid.train(
        model,
        DATA,
        loss=nn.CrossEntropyLoss(),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1),
        groups=1,
        stages=2,
        batch_size=4,
        updates=20,
        engine=engine,
        quiet=True,
        grid=GridSettings(cuts=["2"]),
    )
    return result.model.state_dict()


def ports() -> list[tuple[str, int]]:
    """Return address and port of every socket on which a worker of this test listens."""
    inodes = set()
    for process in workers():
        for path in Path(f"/proc/{process}/fd").iterdir():
            with suppress(OSError):
                inodes.add(os.readlink(path).removeprefix("socket:[").removesuffix("]"))
    found = []
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == LISTENING and fields[9] in inodes:
                address, port = fields[1].split(":")
                found.append((address, int(port, 16)))
    return found


INTRUDER = """
import os, socket, struct, sys

"".encode("idna")  # loads what connecting needs, while it can be read
if os.geteuid() == 0:
    os.setuid(65534)  # root alone can be another user
words = [b"", b"GET / HTTP/1.0\\r\\n\\r\\n", os.urandom(4096), bytes(4096), b"\\xff" * 64]
# What Gloo expects first is the number of one of its pairs, which are counted from 0.
words += [struct.pack("<q", number) + os.urandom(number) for number in range(16)]
kept = []
for port in map(int, sys.argv[1:]):
    for word in words * 4:
        kept.append(socket.create_connection(("127.0.0.1", port), timeout=10))
        try:
            kept[-1].sendall(word)
        except OSError:
            pass
print(len(kept), flush=True)
sys.stdin.read()
"""
"""Says all sorts of things to ports, and nothing at all, and keeps every connection until its input ends."""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="ports of a process are listed by Linux only")
def test_garbage_and_silence_on_the_ports_of_a_run_change_no_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(MARK, str(os.getpid()))
    seen: list[tuple[str, int]] = []
    connections: list[int] = []

    def watch() -> None:
        assert wait_until((tmp_path / "waiting").exists, 20)
        seen.extend(ports())
        command = [sys.executable, "-I", "-c", INTRUDER, *(str(port) for _, port in seen)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as intruder:
            connections.append(int(intruder.stdout.readline() or 0))  # type: ignore[union-attr]
            (tmp_path / "open").touch()
            thread_ends.wait(60)

    thread_ends = threading.Event()
    thread = threading.Thread(target=watch)
    thread.start()
    try:
        disturbed = train(tmp_path, 8, "processes")
    finally:
        thread_ends.set()
        thread.join()
    assert connections[0] >= len(seen) > 0
    assert {address for address, _ in seen} == {"0100007F"}, "workers listen on the loopback interface alone"
    undisturbed = train(tmp_path, 0, "simulator")
    assert all(torch.equal(value, undisturbed[name]) for name, value in disturbed.items())
