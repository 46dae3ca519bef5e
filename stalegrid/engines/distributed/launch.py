"""Starts the processes of a run on this host, watches them, and ends them all if one fails.

Does not know: what they compute.
"""

import os
import pickle
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cloudpickle
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stalegrid.engines.distributed.worker import Job
from stalegrid.engines.distributed.world import Home, homes
from stalegrid.errors import ConfigError, EngineError, WorkerDied

GRACE = 3.0
"""Seconds that the others have to say what they were waiting for, once one process has failed."""

_LOOK = 0.05  # seconds between two looks at the processes


def launch(job: Job, processes: int) -> None:
    """Run a job in new processes and return when all have ended well.

    Args:
        job: what is to be done.
        processes: for the units; one more watches the run.

    Raises:
        StalegridError: what the process that failed first said, with what the others then waited for.
        WorkerDied: one ended without a word.
    """
    size = processes + 1
    home = homes(job.plan.program, size, spare=True)
    with tempfile.TemporaryDirectory(prefix="stalegrid-") as name:
        folder = Path(name)
        try:
            with (folder / "job").open("wb") as file:
                cloudpickle.dump(job, file)
        except Exception as problem:  # what is in a task is the user's: anything can be raised
            raise ConfigError(
                f"the model, data, loss or factories cannot be sent to worker processes: {problem}; remove what cannot "
                "be pickled, or use the simulator"
            ) from problem
        store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
        with _workers(folder, size, store.port) as workers:
            if not _watch(workers):
                raise _cause(folder, workers, home)


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


def _watch(workers: list[subprocess.Popen[bytes]]) -> bool:
    """Wait until all have ended well, or one has not; return which of the two."""
    while True:
        codes = [worker.poll() for worker in workers]
        if any(code not in (None, 0) for code in codes):
            return False
        if all(code == 0 for code in codes):
            return True
        time.sleep(_LOOK)


def _cause(folder: Path, workers: list[subprocess.Popen[bytes]], home: Home) -> BaseException:
    """Find the error that began it: of the numbers or the program first, then a silent death, then waiting for it."""
    end = time.monotonic() + GRACE
    while time.monotonic() < end and any(worker.poll() is None for worker in workers):
        time.sleep(_LOOK)
    paths = [folder / f"error-{rank}" for rank in range(len(workers))]
    told: list[tuple[BaseException, str]] = [pickle.loads(path.read_bytes()) for path in paths if path.exists()]
    for error, text in told:
        if not isinstance(error, EngineError):
            error.add_note(f"in a worker process:\n{text}")
            return error
    waits = "\n  ".join(dict.fromkeys(str(error) for error, _ in told))
    for rank, worker in enumerate(workers):
        code = worker.poll()
        if code not in (None, 0) and not paths[rank].exists():
            return WorkerDied(f"{_obituary(rank, code, home)}; then\n  {waits or 'nobody waited'}")
    return type(told[0][0])(waits)


def _obituary(rank: int, code: int, home: Home) -> str:
    units = ", ".join(str(unit) for unit, where in home.items() if where == rank)
    how = f"killed by signal {-code}" if code < 0 else f"exit status {code}"
    return f"process {rank} of units {units} ended without a word ({how})"
