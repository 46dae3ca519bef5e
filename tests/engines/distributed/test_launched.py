"""Processes that a launcher starts listen on one interface, that which leads to the first of them."""

import os
import socket
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from stalegrid.engines.distributed import torchrun
from stalegrid.engines.distributed.interfaces import GLOO, NCCL, Interface, interfaces, loopback, named
from stalegrid.engines.distributed.launched import VARIABLES, Launched
from stalegrid.errors import ConfigError, DeadlineExceeded, EngineError

LOOPS = Interface("lo", "127.0.0.1", True)


@pytest.fixture(autouse=True)
def _none_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (GLOO, NCCL, "LOCAL_WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.delenv(name, raising=False)


def outside() -> Interface:
    for one in interfaces():
        if not one.loops and "." in one.address:
            return one
    pytest.skip("this host has no interface but loopback")


def free(address: str) -> int:
    with socket.create_server((address, 0)) as server:
        return int(server.getsockname()[1])


def listening(port: int) -> set[str]:
    """Return the addresses at which somebody listens on a port, as Linux writes them."""
    lines = Path("/proc/net/tcp").read_text().splitlines()[1:] + Path("/proc/net/tcp6").read_text().splitlines()[1:]
    places = [line.split()[1].split(":") for line in lines if line.split()[3] == "0A"]
    return {address for address, number in places if int(number, 16) == port}


def test_the_interface_is_the_one_named_or_loopback_or_that_which_leads_to_the_first_host(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    other = outside()
    assert Launched(0, 2, "localhost", 1).interface(1.0).loops
    assert Launched(1, 2, other.address, 1).interface(1.0) == named(other.name)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert Launched(1, 2, other.address, 1).interface(1.0).loops
    monkeypatch.setenv(GLOO, other.name)
    assert Launched(1, 2, "localhost", 1).interface(1.0) == named(other.name)


@pytest.mark.skipif(not Path("/proc/net/tcp6").exists(), reason="who listens is listed by Linux only")
def test_the_first_process_listens_where_the_others_look_for_it_and_nowhere_else() -> None:
    other = outside()
    for host, interface in (("localhost", LOOPS), (other.address, other), ("192.0.2.77", other)):
        # The last is an address of a router, which hands on what comes.
        expected = "127.0.0.1" if host == "localhost" else other.address
        port = free(expected)
        store = Launched(0, 1, host, port).store(interface, 10.0)
        assert listening(port) == {bytes(reversed(socket.inet_aton(expected))).hex().upper()}
        store.set("word", "there")


def test_what_is_wrong_with_the_way_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    port = free("127.0.0.1")
    assert Launched(1, 2, "127.0.0.1", port).trouble().startswith(" (127.0.0.1: Connection refused); stalegrid doctor")
    assert "(nowhere.invalid: " in Launched(1, 2, "nowhere.invalid", port).trouble()
    told = Launched(0, 2, "127.0.1.1", port).trouble()
    assert told == " (127.0.1.1 leads to 127.0.1.1 here, where no other host comes); name an address of that host"
    assert Launched(0, 2, "127.0.0.1", port).trouble() == ""
    with closing(socket.create_server(("127.0.0.1", port))):
        assert Launched(1, 2, "127.0.0.1", port).trouble() == ""


def test_libraries_are_told_the_interface_for_as_long_as_processes_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    launched = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free("127.0.0.1"))}
    for name, value in launched.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("STALEGRID_SECRET", raising=False)
    with torchrun.joined(10.0):
        assert os.environ[GLOO] == loopback()
        assert os.environ[NCCL] == f"={loopback()}"
    assert GLOO not in os.environ
    assert NCCL not in os.environ
    monkeypatch.setenv(GLOO, "wg9")
    with pytest.raises(ConfigError, match="no interface that is up has that name"), torchrun.gathered(10.0):
        pass


def test_whoever_finds_no_way_says_so_as_whoever_waits_for_it_would() -> None:
    port = free("127.0.0.1")
    with pytest.raises(DeadlineExceeded, match=f"^nothing answers at 127.0.0.1:{port}, for 0.1 s$"):
        Launched(1, 2, "127.0.0.1", port).store(named(loopback()), 0.1)
    with pytest.raises(DeadlineExceeded, match=r"^nothing answers at nowhere.invalid:9, for 0.1 s$"):
        Launched(1, 2, "nowhere.invalid", 9).interface(0.1)


def test_a_port_that_is_taken_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    with closing(socket.create_server(("127.0.0.1", 0))) as taken:
        launched = Launched(0, 2, "127.0.0.1", taken.getsockname()[1])
        for name, value in zip(VARIABLES, ("0", "2", "127.0.0.1", str(launched.port)), strict=True):
            monkeypatch.setenv(name, value)
        with pytest.raises(EngineError, match=r"cannot meet the others: .*Address already in use"):
            torchrun.gathered(2.0).__enter__()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave the network")
def test_where_nothing_leads_to_the_first_host_that_is_told_within_the_deadline() -> None:
    code = (
        "from stalegrid.engines.distributed import torchrun\n"
        "try:\n    torchrun.gathered(0.5).__enter__()\n"
        "except Exception as error:\n    print(type(error).__name__, error)\n"
    )
    where = {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "10.99.0.1", "MASTER_PORT": "9"}
    command = ["unshare", "--net", sys.executable, "-c", code]
    made = subprocess.run(command, env={**os.environ, **where}, capture_output=True, text=True, timeout=200)
    if made.returncode:
        pytest.skip(f"no network can be made ({made.stderr.strip()[-100:]})")
    assert made.stdout.startswith(f"{DeadlineExceeded.__name__} nothing answers at 10.99.0.1:9, for 0.5 s (10.99.0.1: ")
    assert "Network is unreachable" in made.stdout
