"""The way to a host is measured on plain sockets, and told from one that is none."""

import select
import socket
import struct
from collections.abc import Iterator
from contextlib import closing, suppress

import pytest

from stalegrid.engines.distributed import links
from stalegrid.engines.distributed.links import Answering, measure


@pytest.fixture
def answering(monkeypatch: pytest.MonkeyPatch) -> Iterator[Answering]:
    monkeypatch.setattr(links, "WINDOW", 0.2)
    with closing(Answering("127.0.0.1", "a number")) as found:
        yield found


def test_latency_bandwidth_and_clock_are_measured(answering: Answering, monkeypatch: pytest.MonkeyPatch) -> None:
    link = measure("127.0.0.1", answering.port, "a number", 10.0)
    assert 0 < link.latency < 1000
    assert link.bandwidth > 10
    assert abs(link.ahead) < 0.1


def test_it_listens_where_it_is_told_and_nowhere_else(answering: Answering) -> None:
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.2", answering.port), timeout=5.0)


def test_nobody_who_does_not_know_the_number_is_answered(answering: Answering) -> None:
    with pytest.raises(OSError, match=r"the other side has closed the connection|reset|Broken pipe"):
        measure("127.0.0.1", answering.port, "a guess.", 10.0)
    assert measure("127.0.0.1", answering.port, "a number", 10.0).bandwidth > 0


def test_what_was_counted_is_told_to_whoever_still_sends(answering: Answering) -> None:
    with socket.create_connection(("127.0.0.1", answering.port), timeout=10.0) as asked:
        asked.sendall(b"a number")
        for _ in range(links.PINGS):
            asked.sendall(b"?")
            asked.recv(8, socket.MSG_WAITALL)
        asked.sendall(bytes(1 << 20))
        while not select.select([asked], [], [], 0)[0]:
            asked.sendall(bytes(1 << 20))
        asked.sendall(bytes(64 << 20))
        assert struct.unpack("!d", asked.recv(8, socket.MSG_WAITALL))[0] > 0


def test_a_host_that_does_not_answer_any_more_is_an_error(answering: Answering) -> None:
    answering.close()
    with pytest.raises(OSError, match="refused"):
        measure("127.0.0.1", answering.port, "a number", 5.0)


def test_a_host_that_takes_a_connection_and_says_nothing_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(TimeoutError):
        measure("127.0.0.1", silent.getsockname()[1], "a number", 0.2)


def test_connections_that_say_nothing_hold_nobody_up(answering: Answering) -> None:
    silent = [socket.create_connection(("127.0.0.1", answering.port), timeout=5.0) for _ in range(4)]
    assert measure("127.0.0.1", answering.port, "a number", 10.0).bandwidth > 0
    for one in silent:
        with suppress(OSError):
            one.close()
