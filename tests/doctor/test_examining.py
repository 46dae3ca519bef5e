"""One host, or those that a launcher has started, are looked at; what is wrong decides the status."""

import socket
from pathlib import Path

import pytest

from stalegrid.cli import main
from stalegrid.doctor import Examined, examine, table, words
from stalegrid.doctor.rows import Row
from tests.engines.distributed.forked import together

Said = pytest.CaptureFixture[str]


def test_this_host_alone_is_fine(capsys: Said) -> None:
    assert main(["doctor"]) == 0
    shown = capsys.readouterr().out
    assert shown.rstrip().endswith("this host can run it")
    for what in ("Python", "torch", "stalegrid", "listens on", "memory free", "open files", "private folder", "GPUs"):
        assert f" {what} " in shown


def test_what_has_to_be_changed_decides_and_notes_do_not() -> None:
    fine = Row("a", "1")
    noted, wrong = Row("b", "2", advised=("do this",)), Row("c", "3", needed=("do that",), advised=("or this",))
    assert Examined(0, 1, [fine, noted]).fine
    assert not Examined(0, 2, [fine, noted, wrong]).fine
    told = words(Examined(0, 2, [fine, noted, wrong]))
    assert told == ["change: do that", "note: do this", "note: or this", "these 2 hosts cannot run it as they are"]
    assert words(Examined(0, 1, [noted]))[-1] == "this host can run it"
    assert list(table(Examined(0, 1, [fine, noted, wrong])).columns[0].cells) == ["ok", "note", "change"]


def test_processes_of_one_host_see_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]

    def act(rank: int) -> str:
        with pytest.MonkeyPatch.context() as patched:
            for name, value in {
                "RANK": str(rank),
                "WORLD_SIZE": "3",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
            }.items():
                patched.setenv(name, value)
            found = examine(20.0)
        processes = next(row.found for row in found.rows if row.what == "processes")
        return f"{found.rank} {found.hosts} {processes.split(' on ')[0]}"

    assert together(tmp_path, 3, act) == ["0 1 3", "1 1 3", "2 1 3"]
