"""A command of stalegrid in a process of its own, and all processes that come of it.

Does not know: what the command does, what is done to its processes.

The process is forked from one that has loaded the libraries: what is disturbed is a run, not the loading of torch.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

LOOK = 0.005
"""Seconds between two looks at a run."""

_MARK = "STALEGRID_TRIAL"
_LOADED = ["stalegrid.cli", "stalegrid.recipes", "torch._dynamo", "benchmarks.small"]


class Failed(Exception):
    """Something happened that must not."""


class Started:
    """A command that runs.

    Args:
        arguments: of the command line, after its name.
        said: file to which it prints.
    """

    def __init__(self, arguments: Sequence[str], said: Path) -> None:
        forks = multiprocessing.get_context("forkserver")
        forks.set_forkserver_preload(_LOADED)
        self.begun = time.time_ns()
        self.said = said
        self._mark = uuid4().hex
        self._process = forks.Process(target=_command, args=(list(arguments), said, self._mark))
        self._process.start()
        assert self._process.pid is not None
        self.pid = self._process.pid

    @property
    def alive(self) -> bool:
        """Whether its first process has not ended."""
        return self._process.is_alive()

    def processes(self) -> list[int]:
        """Return all its processes that live, the first one first."""
        return [*([self.pid] if self.alive else []), *_parents(self._mark)]

    def workers(self) -> list[int]:
        """Return processes with units or the observer; none as long as there are none."""
        parents = _parents(self._mark)
        return [pid for pid, parent in parents.items() if parent in parents]

    def wait(self, seconds: float) -> int:
        """Return the exit status of the first process, when all have ended.

        Raises:
            Failed: they have not within that time.
        """
        self._process.join(seconds)
        if self.alive:
            raise Failed(f"it hangs: it has not ended within {seconds:g} s")
        if not wait_for(lambda: not self.processes(), seconds):
            raise Failed(f"{len(self.processes())} processes live on {seconds:g} s after the first one ended")
        return self._process.exitcode or 0

    def end(self) -> None:
        """End all its processes, those that are stopped too."""
        for pid in self.processes():
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._process.join()


def wait_for(what: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is so, and return whether it was within that time."""
    end = time.monotonic() + seconds
    while not what():
        if time.monotonic() > end:
            return False
        time.sleep(LOOK)
    return True


def _command(arguments: list[str], said: Path, mark: str) -> None:
    from stalegrid.cli import main

    os.environ[_MARK] = mark  # processes that are started have it where everybody can read it
    with said.open("a") as file:
        for stream in (1, 2):
            os.dup2(file.fileno(), stream)
    sys.exit(main(arguments))


def _parents(mark: str) -> dict[int, int]:
    """Return the parent of each process that has a mark."""
    found = {}
    for path in Path("/proc").iterdir():
        with suppress(OSError):  # it has ended meanwhile
            if path.name.isdigit() and mark.encode() in (path / "environ").read_bytes():
                found[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
    return found
