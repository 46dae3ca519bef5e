"""What may happen to a run, and to the files that it has left.

Does not know: what runs do, what must come of them.
"""

import ctypes
import os
import resource
import signal
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.started import Started, wait_for

_PIDFD_GETFD = 438  # as <sys/syscall.h> numbers it; Python has no name for it
_ROOM = 16  # binary digits at most of the bytes that any file may have on a disk that is full
_BORN = 30.0  # seconds within which a run has workers
_FULL = 0.5  # seconds at most, where the disk is emptied again


@dataclass(frozen=True)
class Fault:
    """Something that happens to a run that goes on.

    Args:
        name: for the reader.
        strike: does it, given the run and draws, and returns whether there still was something to do it to.
        statuses: with which the run may end then, beside 0.
        workers: whether it happens to one of several processes.
        silent: whether it is noticed by waiting alone.
    """

    name: str
    strike: Callable[[Started, Random], bool]
    statuses: tuple[int, ...]
    workers: bool = False
    silent: bool = False


def _signalled(number: signal.Signals) -> Callable[[Started, Random], bool]:
    return lambda run, draw: run.alive and _sent(run.pid, number)


def _to_worker(number: signal.Signals) -> Callable[[Started, Random], bool]:
    def strike(run: Started, draw: Random) -> bool:
        workers = _workers(run)
        return bool(workers) and _sent(draw.choice(workers), number)

    return strike


def _workers(run: Started) -> list[int]:
    """Return the workers of a run, as soon as there are any."""
    wait_for(lambda: bool(run.workers()) or not run.alive, _BORN)
    return sorted(run.workers())


def _sent(pid: int, number: signal.Signals) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, number)
        return True
    return False


def _cut(run: Started, draw: Random) -> bool:
    """Shut a connection between two workers, as a network that fails does."""
    ends = [(pid, number) for pid in _workers(run) for number in _sockets(pid)]
    if not ends:
        return False
    with suppress(ProcessLookupError), _taken(*draw.choice(ends)) as connection:
        connection.shutdown(socket.SHUT_RDWR)
        return True
    return False


@contextmanager
def _taken(pid: int, number: int) -> Iterator[socket.socket]:
    """Open a connection of another process here too."""
    process = os.pidfd_open(pid)
    try:
        taken = ctypes.CDLL(None, use_errno=True).syscall(_PIDFD_GETFD, process, number, 0)
        if taken < 0:
            raise ProcessLookupError(ctypes.get_errno(), f"its connection cannot be taken (process: {pid})")
        with socket.socket(fileno=taken) as connection:
            yield connection
    finally:
        os.close(process)


def _sockets(pid: int) -> list[int]:
    """Return the TCP connections of a process, by their numbers in it."""
    with suppress(OSError):
        lines = Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]
        connected = {f"socket:[{words[9]}]" for words in map(str.split, lines) if words[3] == "01"}
        files = sorted(Path(f"/proc/{pid}/fd").iterdir(), key=lambda path: int(path.name))
        return [int(path.name) for path in files if os.readlink(path) in connected]
    return []


def _fill(run: Started, draw: Random) -> bool:
    """Let no file of all processes, or of one, grow any more, and perhaps again after a while."""
    room, again, after = draw.randrange(1 << draw.randrange(_ROOM)), draw.random() < 0.5, draw.uniform(0, _FULL)
    processes = run.processes()
    if draw.random() < 0.5 and (workers := sorted(run.workers())):
        processes = [draw.choice(workers)]
    _limit(processes, room)
    if again:
        time.sleep(after)
        _limit(processes, resource.RLIM_INFINITY)
    return bool(processes)


def _limit(processes: Sequence[int], size: int) -> None:
    for pid in processes:
        with suppress(OSError):  # it has ended meanwhile
            _, hard = resource.prlimit(pid, resource.RLIMIT_FSIZE)
            resource.prlimit(pid, resource.RLIMIT_FSIZE, (size, hard))


KILLED = Fault("kill -9 of the starter", _signalled(signal.SIGKILL), (-signal.SIGKILL,))
TERMINATED = Fault("SIGTERM", _signalled(signal.SIGTERM), (os.EX_TEMPFAIL, 128 + signal.SIGTERM))
INTERRUPTED = Fault("SIGINT", _signalled(signal.SIGINT), (os.EX_TEMPFAIL, 128 + signal.SIGINT))
FAULTS = (
    KILLED,
    TERMINATED,
    INTERRUPTED,
    Fault("kill -9 of a worker", _to_worker(signal.SIGKILL), (1,), workers=True),
    Fault("SIGSTOP of a worker", _to_worker(signal.SIGSTOP), (1,), workers=True, silent=True),
    Fault("cut link", _cut, (1,), workers=True),
    Fault("full disk", _fill, (1, 2)),
)


def _truncated(path: Path, draw: Random) -> None:
    os.truncate(path, draw.randrange(path.stat().st_size))


def _flipped(path: Path, draw: Random) -> None:
    content = bytearray(path.read_bytes())
    content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    path.write_bytes(content)


def _removed(path: Path, draw: Random) -> None:
    path.unlink()


DAMAGES: dict[str, Callable[[Path, Random], None]] = {
    "truncated file": _truncated,
    "flipped bit": _flipped,
    "removed file": _removed,
}
"""What may happen to a file of a run that is stopped."""
