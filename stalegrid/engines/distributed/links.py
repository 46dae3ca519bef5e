"""Measures the way between two hosts: how late and how much arrives, and whose clock is ahead.

Does not know: who measures what when, what is sent otherwise.

Plain sockets, on the interface on which a run listens, and on ports from which it draws its own.  Whoever asks shows a
number that only this survey's processes have been told.
"""

import select
import socket
import struct
from contextlib import suppress
from dataclasses import dataclass
from threading import Thread
from time import monotonic, perf_counter, time

WINDOW = 1.0
"""Seconds for which bytes are counted; only those of the second half, when a connection has found its speed."""

PINGS = 20
"""Questions that are asked before, one after another."""

_SILENT = 10.0  # seconds that whoever asks may be
_NUMBER = struct.Struct("!d")
_ROOM = 1 << 20  # bytes sent or taken at once
_BITS = 8e-6  # megabits a byte


@dataclass(frozen=True)
class Link:
    """The way from one host to another.

    Args:
        latency: milliseconds, half of what the quickest of some questions and its answer take.
        bandwidth: Mbit/s that arrive.
        ahead: seconds by which the other host's clock is ahead.
    """

    latency: float
    bandwidth: float
    ahead: float


class Answering:
    """Answers whoever measures the way to this host, until it is closed.

    Args:
        address: where it listens, and nowhere else.
        token: what they have to show.
    """

    def __init__(self, address: str, token: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self._listening = socket.create_server((address, 0), family=family)
        self._token = token.encode()
        self.port: int = self._listening.getsockname()[1]
        Thread(target=self._run, name="answer", daemon=True).start()

    def close(self) -> None:
        """Answer nobody any more."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # wakes who waits in accept
        self._listening.close()

    def _run(self) -> None:
        with suppress(OSError):  # it was closed
            while True:
                asked, _ = self._listening.accept()
                Thread(target=self._answer, args=(asked,), name="answer one", daemon=True).start()

    def _answer(self, asked: socket.socket) -> None:
        # Whoever breaks off learns nothing; that is told where it was asked.
        with asked, suppress(OSError):
            asked.settimeout(_SILENT)
            asked.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if _taken(asked, len(self._token)) != self._token:
                return
            for _ in range(PINGS):
                _taken(asked, 1)
                asked.sendall(_NUMBER.pack(time()))
            asked.sendall(_NUMBER.pack(_count(asked)))
            # Closed with bytes unread, the connection would be reset, and the number might be lost with it.
            room = bytearray(_ROOM)
            while asked.recv_into(room):
                pass


def measure(address: str, port: int, token: str, patience: float) -> Link:
    """Measure the way to a host that answers.

    Args:
        address: of the interface on which it does.
        port: likewise.
        token: what it wants to be shown.
        patience: seconds that nothing may be heard of it.

    Raises:
        OSError: it cannot be reached, or breaks off.
    """
    with socket.create_connection((address, port), timeout=patience) as asked:
        asked.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        asked.sendall(token.encode())
        taken, ahead = zip(*(_ping(asked) for _ in range(PINGS)), strict=True)
        # Others may wait behind bytes that the other host sends meanwhile.
        quickest = taken.index(min(taken))
        return Link(500 * taken[quickest], _send(asked, patience) * _BITS, ahead[quickest])


def _ping(asked: socket.socket) -> tuple[float, float]:
    """Return the seconds that an answer takes, and by how many the other clock is then ahead."""
    start, now = perf_counter(), time()
    asked.sendall(b"?")
    (theirs,) = _NUMBER.unpack(_taken(asked, _NUMBER.size))
    seconds = perf_counter() - start
    return seconds, theirs - now - seconds / 2


def _send(asked: socket.socket, patience: float) -> float:
    """Send until the other side has counted enough, and return the bytes a second that it has."""
    content, last = memoryview(bytes(_ROOM)), monotonic()
    asked.setblocking(False)
    while True:
        readable, writable, _ = select.select([asked], [asked], [], patience)
        if readable:
            asked.settimeout(patience)
            (rate,) = _NUMBER.unpack(_taken(asked, _NUMBER.size))
            return float(rate)
        if not writable or monotonic() > last + patience:
            raise TimeoutError("timed out while bytes were sent")
        with suppress(BlockingIOError):
            asked.send(content)


def _count(asked: socket.socket) -> float:
    """Return the bytes a second that arrive once the connection has found its speed."""
    room = bytearray(_ROOM)
    start = now = perf_counter()
    begun, counted = start, 0
    while now < start + WINDOW:
        size = asked.recv_into(room)
        if not size:
            raise ConnectionError("the other side has closed the connection")
        now = perf_counter()
        if now < start + WINDOW / 2:
            begun = now
        else:
            counted += size
    return counted / (now - begun)


def _taken(asked: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        part = asked.recv(size - len(found))
        if not part:
            raise ConnectionError("the other side has closed the connection")
        found += part
    return found
