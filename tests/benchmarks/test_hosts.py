import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hosts import Host, hosts
from benchmarks.measure import Skipped
from tests.namespaces import end, network, start

DELAY = 20.0
PATIENCE = 60.0  # seconds, on a machine that does other things too

ANSWERING = """
import socket
with socket.create_server(("", 5000)) as listening:
    print("listens", flush=True)
    asked, _ = listening.accept()
with asked:
    while content := asked.recv(1 << 16):
        asked.sendall(content)
"""
ASKING = """
import json, random, socket, sys, threading, time
content = random.Random(0).randbytes(3_000_000)
with socket.create_connection((sys.argv[1], 5000)) as asked:
    taken = []
    for _ in range(10):
        start = time.perf_counter()
        asked.sendall(b"?")
        asked.recv(1)
        taken.append(time.perf_counter() - start)
    sending = threading.Thread(target=asked.sendall, args=(content,))
    sending.start()
    found = b""
    while len(found) < len(content):
        found += asked.recv(1 << 16)
    sending.join()
print(json.dumps([min(taken), found == content]))
"""


def test_hosts_that_are_far_apart_hear_each_other_later_and_whole(tmp_path: Path) -> None:
    with network(2, delay=DELAY) as (one, other):
        there_and_back, whole = _asked(one, other, tmp_path)
    assert whole
    # How late processes wake on a busy machine is not bounded; twice as far would still be told from it.
    assert 2 * DELAY <= 1000 * there_and_back < 4 * DELAY
    assert not _namespaces() & {one.namespace, other.namespace}


def test_hosts_on_short_cables_hear_each_other_whole(tmp_path: Path) -> None:
    with network(2) as (one, other):
        assert _asked(one, other, tmp_path)[1]


def test_without_cables_there_is_no_network_and_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    with network(1):  # skips where that is not allowed
        before = _namespaces()
        monkeypatch.setattr(sys, "executable", "false")
        with pytest.raises(Skipped, match="no long cables"), hosts(1, 100.0, DELAY):
            pass
        assert _namespaces() == before


def _asked(one: Host, other: Host, folder: Path) -> tuple[float, bool]:
    """Return the seconds that a question and its answer take at least, and whether much comes back as it was."""
    answering = start(one, "one", ["-c", ANSWERING], folder)
    try:
        assert answering.stdout is not None
        assert answering.stdout.readline() == "listens\n"
        asking = start(other, "other", ["-c", ASKING, one.address], folder)
        said, _ = asking.communicate(timeout=PATIENCE)
    finally:
        end([answering])
    seconds, whole = json.loads(said)
    return seconds, whole


def _namespaces() -> set[str]:
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout
    return {line.split()[0] for line in listed.splitlines()}
