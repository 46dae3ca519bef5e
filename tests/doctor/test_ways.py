"""Ways between hosts are listed, those that there are not with what to change."""

from stalegrid.doctor.ways import APART, SHOWN, rows
from stalegrid.engines import Link
from tests.doctor.hosts import hosts

TOLD = {"address": "10.0.0.2", "ports": "32768-60999"}
LINK = Link(0.25, 940.0, 0.001)


def test_latency_and_bandwidth_of_each_way_are_shown() -> None:
    found = rows(hosts(TOLD, {}, {}), {(0, 1): LINK, (1, 0): Link(0.25, 94.0, -0.001)})
    assert found[0].found == "b -> a: 0.25 ms, 94 Mbit/s\na -> b: 0.25 ms, 940 Mbit/s"
    assert found[1].found == "at most 0.001 s apart"
    assert not any(row.needed or row.advised for row in found)


def test_a_way_that_there_is_not_is_named_with_what_to_change() -> None:
    ways, clocks = rows(hosts(TOLD, {}, {}), {(0, 1): "No route to host", (1, 0): LINK})
    assert ways.found.endswith("\na -> b: none (No route to host)")
    assert ways.needed == (
        "a: no way to b at 10.0.0.2 (No route to host); let firewalls and security groups pass TCP to the ports "
        "32768-60999 there, or name another interface in GLOO_SOCKET_IFNAME",
    )
    assert not clocks.advised


def test_clocks_that_are_apart_are_noted_once_a_pair_but_not_where_the_way_is_as_slow() -> None:
    ahead = APART + 0.01
    _, clocks = rows(hosts(TOLD, {}, {}), {(0, 1): Link(1.0, 1.0, ahead), (1, 0): Link(1.0, 1.0, -ahead)})
    (line,) = clocks.advised
    assert line.startswith("b: its clock is 0.11 s ahead of that of a, ")
    _, clocks = rows(hosts(TOLD, {}, {}), {(0, 1): Link(20.0, 1.0, ahead), (1, 0): Link(20.0, 1.0, -ahead)})
    assert not clocks.advised


def test_of_many_ways_the_slowest_are_shown() -> None:
    links = {(0, i + 1): Link(1.0, 100.0 + i, 0.0) for i in range(SHOWN + 3)}
    many = [hosts(TOLD, {})[0]] * (SHOWN + 4)
    lines = rows(many, links)[0].found.splitlines()
    assert len(lines) == SHOWN + 1
    assert lines[0].endswith("100 Mbit/s")
    assert lines[-1] == "and 3 more, all faster"


def test_one_host_alone_has_no_ways() -> None:
    assert rows(hosts(TOLD, {}), {}) == []
