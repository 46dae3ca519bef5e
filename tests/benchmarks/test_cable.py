import os
import socket
import time
from collections.abc import Iterator
from threading import Thread

import pytest

from benchmarks import cable

DELAY = 0.05
FRAMES = [bytes([i]) * (1 + 999 * i) for i in range(20)]


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[socket.socket]]:
    """What is connected to either end of a cable; a datagram is a frame."""
    pairs = [socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM) for _ in range(2)]
    inside = [inner for _, inner in pairs]
    for inner in inside:
        inner.setblocking(False)
    until, closed = os.pipe()
    monkeypatch.setattr(cable, "_INPUT", until)
    one, other = (inner.fileno() for inner in inside)
    carrying = Thread(target=cable._carry, args=({one: other, other: one}, DELAY), daemon=True)
    carrying.start()
    for outer, _ in pairs:
        outer.settimeout(10)
    yield [outer for outer, _ in pairs]
    os.close(closed)
    carrying.join(10)
    assert not carrying.is_alive()
    os.close(until)
    for pair in pairs:
        for each in pair:
            each.close()


def test_frames_leave_the_other_end_later_whole_and_in_order(ends: list[socket.socket]) -> None:
    one, other = ends
    start = time.monotonic()
    for frame in FRAMES[:8]:  # a socket holds ten
        one.send(frame)
    assert [other.recv(1 << 17) for _ in FRAMES[:8]] == FRAMES[:8]
    assert time.monotonic() - start >= DELAY


def test_both_ways_are_as_long(ends: list[socket.socket]) -> None:
    one, other = ends
    start = time.monotonic()
    for frame in FRAMES:
        one.send(frame)
        other.send(other.recv(1 << 17))
        assert one.recv(1 << 17) == frame
    assert time.monotonic() - start >= 2 * DELAY * len(FRAMES)
