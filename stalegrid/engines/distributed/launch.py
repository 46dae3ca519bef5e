"""Starts the processes of a run on this host, watches them, and ends them all if one fails.

Does not know: what they compute.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stalegrid.engines.distributed.packing import Packer
from stalegrid.engines.distributed.worker import MET, Job
from stalegrid.engines.distributed.world import Home, homes
from stalegrid.errors import ConfigError, EngineError, TrainingError, WorkerDied
from stalegrid.program import Agenda

GRACE = 3.0
"""Seconds that the others have to say what they were waiting for, once one process has failed."""

_LOOK = 0.05  # seconds between two looks at the processes


def launch(job: Job, number: int) -> None:
    """Run a job in new processes and return when all have ended well.

    Args:
        job: what is to be done.
        number: of processes for the units; one more watches the run.

    Raises:
        StalegridError: what the process that failed first said, with what the others then waited for.
        WorkerDied: one ended without a word.
    """
    size = number + 1
    home = homes(job.plan.program, size, spare=True)
    with tempfile.TemporaryDirectory(prefix="stalegrid-") as name:
        folder = Path(name)
        try:
            with (folder / "job").open("wb") as file:
                Packer(file).dump(job)
        except Exception as problem:  # what is in a task is the user's: anything can be raised
            raise ConfigError(
                f"the model, data, loss or factories cannot be sent to worker processes: {problem}; remove what cannot "
                "be pickled, or use the simulator"
            ) from problem
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with _workers(folder, size, store.port) as processes:
            workers = Workers(folder, processes, home, _vital(job.plan.program, home))
            if not workers.watch():
                raise workers.cause()


def _vital(program: Agenda, home: Home) -> set[int]:
    """Return the processes without which the others cannot go on."""
    return {rank for unit, rank in home.items() if not program.expendable(unit)}


@contextmanager
def _workers(folder: Path, size: int, port: int) -> Iterator[list[subprocess.Popen[bytes]]]:
    command = [sys.executable, "-m", "stalegrid.engines.distributed", str(folder)]
    # The user's own modules must be found where this process finds them.
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path)}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for rank in range(size):
            arguments = [*command, str(rank), str(size), str(port)]
            # In a session of their own, so that Ctrl-C reaches only this process, which then ends them in order.
            workers.append(subprocess.Popen(arguments, env=environment, stdin=subprocess.PIPE, start_new_session=True))
        yield workers
    finally:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()
            assert worker.stdin is not None
            worker.stdin.close()


class Workers:
    """The processes of a run, as their starter sees them.

    Args:
        folder: where they tell what went wrong.
        processes: in the order of their ranks.
        home: rank of every unit.
        vital: ranks without which the others cannot go on.
    """

    def __init__(
        self, folder: Path, processes: Sequence[subprocess.Popen[bytes]], home: Home, vital: Collection[int]
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._home = home
        self._vital = vital
        self._mourned: list[int] = []  # in the order of their ends

    def watch(self) -> bool:
        """Wait until all have ended well, or one has not; return which of the two.

        Once all have met, the end of a process that is not vital is told and no more, unless the numbers went wrong.
        """
        while True:
            codes = [process.poll() for process in self._processes]
            failed = [rank for rank, code in enumerate(codes) if code not in (None, 0) and rank not in self._mourned]
            if any(self._is_fatal(rank) for rank in failed):
                return False
            for rank in failed:
                self._mourned.append(rank)
                print(f"{self._obituary(rank)}; the others go on", file=sys.stderr, flush=True)
            if all(codes[rank] == 0 for rank in self._vital):
                return True
            time.sleep(_LOOK)

    def _is_fatal(self, rank: int) -> bool:
        told = self._told(rank)
        together = (self._folder / MET).exists()
        return rank in self._vital or not together or (told is not None and isinstance(told[0], TrainingError))

    def cause(self) -> BaseException:
        """Find the error that began it.

        That is one of the numbers, then of the program, then a silent death, then waiting for it; of those whom the
        others need before those whom they survived.
        """
        end = time.monotonic() + GRACE
        while time.monotonic() < end and any(process.poll() is None for process in self._processes):
            time.sleep(_LOOK)
        ranks = range(len(self._processes))
        others = [*self._mourned, *(r for r in ranks if r not in self._vital and r not in self._mourned)]
        told = {rank: found for rank in (*sorted(self._vital), *others) if (found := self._told(rank)) is not None}
        fresh = [rank for rank in told if rank not in self._mourned]
        waits = "\n  ".join(dict.fromkeys(str(told[r][0]) for r in fresh if isinstance(told[r][0], EngineError)))
        for found in told.values():
            if isinstance(found[0], TrainingError):
                return _with_text(*found)
        for some in (sorted(self._vital), others):
            named = [told[rank] for rank in some if rank in told and not isinstance(told[rank][0], EngineError)]
            if named:
                return _with_text(*named[0])
            silent = [rank for rank in some if self._processes[rank].poll() not in (None, 0) and rank not in told]
            if silent:
                ends = "; ".join(map(self._obituary, silent))
                return WorkerDied(f"{ends}; then\n  {waits or 'nobody waited'}")
        return type(told[fresh[0]][0])(waits)

    def _told(self, rank: int) -> tuple[BaseException, str] | None:
        path = self._folder / f"error-{rank}"
        return pickle.loads(path.read_bytes()) if path.exists() else None

    def _obituary(self, rank: int) -> str:
        units = ", ".join(str(unit) for unit, where in self._home.items() if where == rank)
        if (told := self._told(rank)) is not None:
            return f"process {rank} of units {units} failed: {type(told[0]).__name__}: {told[0]}"
        code = self._processes[rank].poll() or 0
        how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
        return f"process {rank} of units {units} ended without a word ({how})"


def _with_text(error: BaseException, text: str) -> BaseException:
    error.add_note(f"in a worker process:\n{text}")
    return error
