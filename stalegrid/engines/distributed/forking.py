"""The warm process: forks workers, says how each ended, and ends those whose starter is done with them or gone.

Does not know: what workers do, who asks for them.

It has loaded what workers need and computed nothing, so it has no threads and has not touched a GPU: a fork copies
neither.  Whatever workers share by being forked and would not share as processes of their own is parted in them.
"""

import gc
import importlib
import json
import os
import shutil
import signal
import socket
import sys
import traceback
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from io import TextIOWrapper
from multiprocessing.connection import wait
from pathlib import Path

import numpy as np

from stalegrid.engines.distributed.worker import main

_OWN, _EACH = 16, 2  # files that a worker may open, for itself and for each of the workers that it talks to


@dataclass(frozen=True)
class Order:
    """Workers that are asked for.

    Args:
        folder: through which they and their starter talk; removed when all have ended.
        size: how many.
        environment: their variables.
        path: where they look for modules.
    """

    folder: str
    size: int
    environment: dict[str, str]
    path: list[str]


@dataclass(frozen=True)
class Files:
    """What comes with an order, as numbers of open files.

    Args:
        reports: a socket; how workers end is said there, and they are ended when the other side closes.
        job: what they do.
        lifeline: their standard input, which closes when their starter is gone.
        out: their standard output.
        err: their standard error.
        here: their current folder.
    """

    reports: int
    job: int
    lifeline: int
    out: int
    err: int
    here: int


class Brood:
    """The workers of one order, as the process that forked them sees them.

    Args:
        reports: where it is said how they end.
        folder: removed when all have ended.
    """

    def __init__(self, reports: socket.socket, folder: str) -> None:
        self.reports = reports
        self.wanted = True
        self.alive: dict[int, int] = {}
        """Rank of each process that has not ended."""
        self._folder = folder

    def tell(self, *what: str | int | None) -> None:
        """Say something to the starter, who may be gone."""
        with suppress(OSError):
            self.reports.sendall(json.dumps(what).encode() + b"\n")

    def reap(self) -> None:
        """Say who has ended meanwhile."""
        for process, rank in list(self.alive.items()):
            found, status = os.waitpid(process, os.WNOHANG)
            if found:
                del self.alive[process]
                self.tell("ended", rank, os.waitstatus_to_exitcode(status))

    def is_left(self) -> bool:
        """Return whether the starter, who says nothing more, is done or gone."""
        try:
            return not self.reports.recv(1)
        except ConnectionError:  # killed, with a report unread
            return True

    def end(self) -> None:
        """End those who have not ended: nobody wants them any more."""
        self.wanted = False
        for process in self.alive:
            os.kill(process, signal.SIGKILL)

    def is_over(self) -> bool:
        """Return whether nothing is left to do, having cleaned up: a starter that was killed could not."""
        if self.wanted or self.alive:
            return False
        shutil.rmtree(self._folder, ignore_errors=True)
        self.reports.close()
        return True


def serve(line: socket.socket) -> None:
    """Fork workers for whoever orders them on a line, until it closes and all workers have ended."""
    gc.freeze()  # what is loaded stays; no collection in a worker has to look at it, or copies its pages
    woken, waker = socket.socketpair()
    for end in (woken, waker):
        end.setblocking(False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])  # a starter that blocks it hands that on
    signal.set_wakeup_fd(waker.fileno(), warn_on_full_buffer=False)
    broods: list[Brood] = []
    listening = True
    while listening or broods:
        ready = wait([woken, *([line] if listening else []), *(brood.reports for brood in broods if brood.wanted)])
        if woken in ready:
            woken.recv(4096)
        if line in ready:
            _, files, _, _ = socket.recv_fds(line, 1, 8)
            listening = bool(files)
            if files:
                _fork_all(Files(*files), broods, [line, woken, waker])
        for brood in broods:
            brood.reap()
            if brood.reports in ready and brood.is_left():
                brood.end()
        broods[:] = [brood for brood in broods if not brood.is_over()]
    os._exit(0)


def _fork_all(files: Files, broods: list[Brood], ours: Sequence[socket.socket]) -> None:
    """Fork the workers of an order, which follows on its own socket, and take them among the broods."""
    reports = socket.socket(fileno=files.reports)
    with reports.makefile("rb") as said:
        text = said.readline()
    if text:
        order = Order(**json.loads(text))
        broods.append(brood := Brood(reports, order.folder))
        try:
            _see_room(order.size)
            for rank in range(order.size):
                child = os.fork()
                if not child:
                    _work(order, rank, files, [*ours, *(other.reports for other in broods)])
                brood.alive[child] = rank
        except OSError as problem:
            brood.tell("unborn", problem.strerror)
    else:  # whoever asked is gone
        reports.close()
    for number in (files.job, files.lifeline, files.out, files.err, files.here):
        os.close(number)


def _see_room(size: int) -> None:
    """Open as many files as a worker may, and close them: where there are too few, Gloo would abort it.

    Raises:
        OSError: there are too few.
    """
    opened: list[int] = []
    try:
        for _ in range(_OWN + _EACH * size):
            opened.append(os.dup(0))  # noqa: PERF401 - those that were opened are closed where the next cannot be
    finally:
        for number in opened:
            os.close(number)


def _work(order: Order, rank: int, files: Files, foreign: Sequence[socket.socket]) -> None:
    """Be a worker, to the end of this process.

    Args:
        order: that it is one of.
        rank: its place among them.
        files: of the order.
        foreign: what is open here and not a worker's.
    """
    try:
        os.setsid()  # Ctrl-C reaches only the starter, which then ends all in order
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        for one in foreign:
            # Those who wait for the other end of a socket would wait for this process too.
            one.close()
        for number, file in enumerate((files.lifeline, files.out, files.err)):
            os.dup2(file, number)
            os.close(file)
        os.fchdir(files.here)
        os.close(files.here)
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=sys.stdout.isatty())
        sys.path[:] = order.path
        importlib.invalidate_caches()
        os.environ.clear()
        os.environ.update(order.environment)
        np.random.seed()  # Python's own generator does so by itself
        gc.enable()
        main(Path(order.folder), rank, order.size, files.job)
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(1)
