"""The warm process of this process: it has loaded what workers need, and forks them.

Does not know: what workers do.

Loading torch takes seconds, so it is done once, beside the planning of a run, and kept for the runs that follow.  To
fork this process itself would not do: it may have threads, and have touched a GPU.  The warm process ends with this one
however that ends, since their line closes; so do workers, whose standard input closes.
"""

import atexit
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from threading import Lock
from typing import TextIO

from stalegrid.engines.distributed.forking import Order
from stalegrid.engines.distributed.inherited import Inherited
from stalegrid.engines.distributed.interfaces import GLOO, NCCL
from stalegrid.errors import EngineError, WorkerDied

_ENTRY = Path(__file__).with_name("__main__.py")
_PATIENCE = 5.0  # seconds in which a warm process ends that nobody needs any more


class Worker:
    """A worker, as its starter sees it.

    Args:
        rank: among those that were started with it.
        reports: on all of them.
    """

    def __init__(self, rank: int, reports: "Reports") -> None:
        self._rank = rank
        self._reports = reports

    def poll(self) -> int | None:
        """Return its exit status, or the negative number of the signal that killed it; None if it has not ended.

        Raises:
            EngineError: it could not be started.
            WorkerDied: nobody can say how it ended, or will.
        """
        self._reports.read()
        return self._reports.codes.get(self._rank)


class Reports:
    """What the warm process says of the workers of a run.

    Args:
        source: where it says so.
        process: the warm process.
    """

    def __init__(self, source: socket.socket, process: "subprocess.Popen[bytes]") -> None:
        self.codes: dict[int, int] = {}
        self._source = source
        self._process = process
        self._rest = b""

    def read(self) -> None:
        """Take what has come meanwhile."""
        with suppress(BlockingIOError):
            while found := self._found():
                *lines, self._rest = (self._rest + found).split(b"\n")
                for line in lines:
                    self._take(*json.loads(line))
            code = self._process.wait()
            how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
            raise WorkerDied(f"the process that starts workers ended without a word ({how})")

    def _found(self) -> bytes:
        try:
            return self._source.recv(65536, socket.MSG_DONTWAIT)
        except ConnectionError:  # it ended with an order unread
            return b""

    def _take(self, what: str, *of: str | int) -> None:
        if what == "ended":
            rank, code = map(int, of)
            self.codes[rank] = code
        elif what == "unborn":
            raise EngineError(_unstarted(str(of[0])))
        else:
            raise EngineError(str(of[0]))

    def end(self) -> None:
        """End the workers that have not ended, and return when all have."""
        with suppress(OSError):
            self._source.shutdown(socket.SHUT_WR)
            while self._source.recv(65536):
                pass


class Warm:
    """A process that has loaded, or is loading, what workers need.

    Args:
        inherited: what it gets from this process.

    Raises:
        OSError: it cannot be started.
    """

    def __init__(self, inherited: Inherited) -> None:
        self.process: subprocess.Popen[bytes]
        self._inherited = inherited
        self.line, theirs = socket.socketpair()
        try:
            with theirs:
                # In a session of its own, so that Ctrl-C reaches only this process, which then ends all in order.
                self.process = subprocess.Popen(
                    [*inherited.command, "-P", str(_ENTRY)],
                    stdin=theirs.fileno(),
                    stdout=_inherited(sys.__stdout__),
                    stderr=_inherited(sys.__stderr__),
                    start_new_session=True,
                )
            path = json.dumps(_path()).encode()
            with suppress(BrokenPipeError):  # it has ended already, as who orders workers will see
                self.line.sendall(len(path).to_bytes(4) + path)
        except BaseException:
            self.line.close()
            raise

    def is_as(self, inherited: Inherited) -> bool:
        """Return whether it is what would be started now."""
        return self._inherited == inherited and self.process.poll() is None


class Kept:
    """The warm process of this process, and older ones whose last workers have not ended."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._warm: Warm | None = None
        self._old: list[Warm] = []

    def get(self) -> Warm:
        """Return the warm process; to be called by who holds the lock."""
        now = Inherited.now()
        if self._warm is not None and not self._warm.is_as(now):
            self._dismiss()
        self._old = [old for old in self._old if old.process.poll() is None]
        if self._warm is None:
            self._warm = Warm(now)
        return self._warm

    def _dismiss(self) -> None:
        """Let the warm process end as soon as the workers that it has forked have ended."""
        if self._warm is not None:
            self._warm.line.close()
            self._old.append(self._warm)
            self._warm = None

    def begin(self) -> None:
        """Let a warm process load, if there is none yet; who then orders workers is told what went wrong."""
        with self._lock, suppress(OSError):
            self.get()

    def order(self, order: Order, files: list[int]) -> "subprocess.Popen[bytes]":
        """Send an order for workers, and return the warm process that has it."""
        with self._lock:
            warm = self.get()
            with suppress(BrokenPipeError):  # it has ended: so its reports close
                socket.send_fds(warm.line, [b"o"], files)
            return warm.process

    def end(self) -> None:
        """End the warm process, as at the end of this one."""
        with self._lock:
            self._dismiss()
            for old in self._old:
                with suppress(subprocess.TimeoutExpired):  # where threads still wait for their runs
                    old.process.wait(_PATIENCE)

    def forget(self) -> None:
        """Leave the warm process, in a process that was forked from this one, to its parent."""
        self._lock = Lock()
        for warm in (*self._old, *([] if self._warm is None else [self._warm])):
            warm.line.close()
            warm.process.returncode = 0  # it is no child of this process, and not to be waited for
        self._warm, self._old = None, []


KEPT = Kept()
"""Of the process, as its environment is."""
atexit.register(KEPT.end)
os.register_at_fork(after_in_child=KEPT.forget)


@contextmanager
def forked(folder: Path, size: int, interface: str, job: int) -> Iterator[list[Worker]]:
    """Start workers, and end them in the end.

    Args:
        folder: through which they and this process talk.
        size: how many.
        interface: on which they talk to each other.
        job: the open file that says what they do.

    Raises:
        EngineError: they cannot be started.
    """
    order = Order(str(folder), size, {NCCL: f"={interface}", **os.environ, GLOO: interface}, _path())
    with ExitStack() as stack:
        try:
            reports = _ordered(order, job, stack)
        except OSError as problem:
            raise EngineError(_unstarted(problem.strerror)) from problem
        stack.callback(reports.end)
        yield [Worker(rank, reports) for rank in range(size)]


def _ordered(order: Order, job: int, stack: ExitStack) -> Reports:
    with ExitStack() as theirs:
        ours, reports = socket.socketpair()
        stack.enter_context(ours)
        theirs.enter_context(reports)
        lifeline, held = os.pipe()
        stack.callback(os.close, held)
        theirs.callback(os.close, lifeline)
        out, err = (theirs.enter_context(_shared(s, n)) for n, s in ((1, sys.__stdout__), (2, sys.__stderr__)))
        here = os.open(".", os.O_PATH)
        theirs.callback(os.close, here)
        process = KEPT.order(order, [reports.fileno(), job, lifeline, out, err, here])
        with suppress(BrokenPipeError):
            ours.sendall(json.dumps(asdict(order)).encode() + b"\n")
        return Reports(ours, process)


@contextmanager
def _shared(stream: TextIO | None, number: int) -> Iterator[int]:
    """Return the open file that workers print to."""
    if _inherited(stream) is None:
        yield number
    else:
        with open(os.devnull, "w") as nowhere:
            yield nowhere.fileno()


def _inherited(stream: TextIO | None) -> int | None:
    """Return what a process prints to: where this one has no such stream, its number may be that of a socket."""
    return subprocess.DEVNULL if stream is None or stream.closed else None


def _path() -> list[str]:
    return [path for path in sys.path if isinstance(path, str)]


def _unstarted(why: str | None) -> str:
    return (
        f"a worker process cannot be started: {why}; close or raise what is limited (ulimit -a), let fewer processes "
        "share the units, or use the simulator"
    )
