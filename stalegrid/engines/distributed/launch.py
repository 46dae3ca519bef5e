"""Starts the processes of a run on this host, watches them, and ends them all if one fails.

Does not know: what they compute.
"""

import math
import pickle
import sys
import time
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from stalegrid.engines.distributed.interfaces import loopback
from stalegrid.engines.distributed.job import Job, write_job
from stalegrid.engines.distributed.private import make_secret, private_folder
from stalegrid.engines.distributed.warm import Worker, forked
from stalegrid.engines.distributed.worker import ALIVE, LEAVE, LEFT, MET, STORE
from stalegrid.engines.distributed.world import Home, homes
from stalegrid.engines.network import stalled
from stalegrid.engines.surroundings import refuse_global_hooks
from stalegrid.errors import DeadlineExceeded, EngineError, GroupLost, TrainingError, WorkerDied
from stalegrid.programs import OBSERVER, Agenda

GRACE = 10.0
"""Seconds that the others have to say what they were waiting for, once one process has failed.

The observer, which may have much to deal with that was told before, has as long as it shows life, but no longer than
the deadline.
"""

BEGIN = 600.0
"""Seconds in which one of them has to come to where they meet, or as long as the deadline if that is more."""

_LOOK = 0.05  # seconds between two looks at the processes


def launch(job: Job, number: int, leaving: Callable[[], bool] = lambda: False) -> bool:
    """Run a job in new processes and return when all have ended well.

    Args:
        job: what is to be done.
        number: of processes for the units; one more watches the run.
        leaving: whether somebody wants the run to leave.

    Returns:
        Whether the run came to its end, and did not leave before.

    Raises:
        ConfigError: they cannot be given the job, or cannot reach each other on this host.
        StalegridError: what the process that failed first said, with what the others then waited for.
        WorkerDied: one ended without a word.
        EngineError: they cannot be started.
    """
    refuse_global_hooks()
    size = number + 1
    home = homes(job.plan.program, size, spare=True)
    interface = loopback()
    with private_folder() as folder, write_job(job) as file:
        make_secret(folder)
        with forked(folder, size, interface, file.fileno()) as processes:
            patience = max(job.engine.deadline, BEGIN)
            workers = Workers(folder, processes, home, _vital(job.plan.program, home), patience, job.engine.deadline)
            if not workers.watch(leaving):
                lost = workers.lost() if job.engine.on_loss == "continue" else None
                raise workers.cause() if lost is None else lost
            return not (folder / LEFT).exists()


def _vital(program: Agenda, home: Home) -> set[int]:
    """Return the processes without which the others cannot go on."""
    return {rank for unit, rank in home.items() if not program.expendable(unit)}


class Workers:
    """The processes of a run, as their starter sees them.

    Args:
        folder: where they tell what went wrong.
        processes: in the order of their ranks.
        home: rank of every unit.
        vital: ranks without which the others cannot go on.
        patience: seconds within which the first of them has to come.
        deadline: seconds within which the others have to end once the observer has, which had all their messages; or
            the observer, which may have much to do when they have ended, has to give a sign of life.
    """

    def __init__(
        self,
        folder: Path,
        processes: Sequence[Worker],
        home: Home,
        vital: Collection[int],
        patience: float,
        deadline: float = BEGIN,
    ) -> None:
        self._folder = folder
        self._processes = processes
        self._home = home
        self._vital = vital
        self._end = time.monotonic() + patience
        self._deadline = deadline
        self._ended = math.inf  # when the observer's process did
        self._sign: float | None = None  # the last one of its life
        self._heard = math.inf  # when that was, as far as anybody asked
        self._silent = False  # whether it has given none for too long
        self._mourned: list[int] = []  # in the order of their ends

    def watch(self, leaving: Callable[[], bool] = lambda: False) -> bool:
        """Wait until all have ended well, or one has not; return which of the two.

        Once all have met, the end of a process that is not vital is told and no more, unless the numbers went wrong.
        """
        while True:
            if leaving():
                (self._folder / LEAVE).touch()
            codes = [process.poll() for process in self._processes]
            failed = [rank for rank, code in enumerate(codes) if code not in (None, 0) and rank not in self._mourned]
            self._silent = self._is_silent(codes)
            if self._silent or any(self._is_fatal(rank) for rank in failed):
                return False
            for rank in failed:
                self._mourned.append(rank)
                print(f"{self._obituary(rank)}; the others go on", file=sys.stderr, flush=True)
            if all(codes[rank] == 0 for rank in self._vital) or self._is_over(codes):
                return True
            if time.monotonic() > self._end and not (self._folder / STORE).exists():
                return False
            time.sleep(_LOOK)

    def _is_over(self, codes: Sequence[int | None]) -> bool:
        """Return whether the observer has ended long ago: results are whole, and who has not ended hangs in its end."""
        observer = self._home.get(OBSERVER)
        if observer is None or codes[observer] != 0:
            return False
        self._ended = min(self._ended, time.monotonic())
        if time.monotonic() < self._ended + self._deadline:
            return False
        late = ", ".join(str(rank) for rank in sorted(self._vital) if codes[rank] is None)
        print(f"process {late} has not ended within {self._deadline:g} s of the run, and is ended", file=sys.stderr)
        return True

    def _is_silent(self, codes: Sequence[int | None]) -> bool:
        """Return whether only the observer has not ended, for which nobody waits any more, and shows no life."""
        observer = self._home.get(OBSERVER)
        if observer is None or codes[observer] is not None or any(codes[r] != 0 for r in self._vital if r != observer):
            return False
        return self._quiet() > self._deadline

    def _quiet(self) -> float:
        """Return for how many seconds, of those in which this is asked, the observer has given no sign of life."""
        file = self._folder / ALIVE
        sign = file.stat().st_mtime if file.exists() else None
        if sign != self._sign or self._heard == math.inf:
            self._sign, self._heard = sign, time.monotonic()
        return time.monotonic() - self._heard

    def _is_fatal(self, rank: int) -> bool:
        told = self._told(rank)
        together = (self._folder / MET).exists()
        return rank in self._vital or not together or (told is not None and isinstance(told[0], TrainingError))

    def cause(self) -> BaseException:
        """Find the error that began it.

        That is one of the numbers, then of the program, then a silent death, then waiting for it; of those whom the
        others need before those whom they survived.
        """
        if self._silent:
            return DeadlineExceeded(
                "the observer is silent: all others have done their work and ended, and for "
                f"{self._deadline:g} s it has given no sign of life"
            )
        self._let_end()
        ranks = range(len(self._processes))
        others = [*self._mourned, *(r for r in ranks if r not in self._vital and r not in self._mourned)]
        told = {rank: found for rank in (*sorted(self._vital), *others) if (found := self._told(rank)) is not None}
        fresh = [rank for rank in told if rank not in self._mourned]
        waiting = [error for rank in fresh if isinstance(error := told[rank][0], EngineError)]
        waits = "\n  ".join(dict.fromkeys(map(str, waiting)))
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
        if not waiting:
            return DeadlineExceeded("no worker process has come to where they meet; start fewer, or raise the deadline")
        return _merged(waiting)

    def _let_end(self) -> None:
        """Wait until all have ended, whom their channels tell that the run is over, or have had their time to."""
        begun = time.monotonic()
        while any(process.poll() is None for process in self._processes):
            waited, lives = time.monotonic() - begun, self._quiet() < GRACE
            observer = self._home.get(OBSERVER)
            observing = observer is not None and self._processes[observer].poll() is None and lives
            if waited > GRACE and not (observing and waited < self._deadline):
                return
            time.sleep(_LOOK)

    def lost(self) -> GroupLost | None:
        """Return which groups are gone, if it is known that no more than whole groups are; after all have said a word.

        Those who ended without one are gone, or else those who were waited for and wait for nobody.
        """
        cause = self.cause()
        if not isinstance(cause, EngineError):
            return None
        ranks = range(len(self._processes))
        dead = {r for r in ranks if self._processes[r].poll() not in (None, 0) and self._told(r) is None}
        silent = {wait.source for wait in cause.waits} - {wait.who for wait in cause.waits}
        gone = {unit for unit, rank in self._home.items() if (rank in dead if dead else str(unit) in silent)}
        groups = sorted({unit.group for unit in gone})
        if not groups or OBSERVER in gone:
            return None
        return GroupLost(str(cause), groups)

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


def _merged(errors: Sequence[EngineError]) -> EngineError:
    """Return one error of several: each process knows only for whom it waits, who is silent follows from all."""
    waits = list(dict.fromkeys(wait for error in errors for wait in error.waits))
    if not waits:
        return type(errors[0])("\n  ".join(dict.fromkeys(map(str, errors))))
    rests = [str(error).removeprefix(stalled(error.waits)).lstrip("; ") for error in errors]
    return type(errors[0])("\n  ".join([stalled(waits), *dict.fromkeys(rests)]), waits)


def _with_text(error: BaseException, text: str) -> BaseException:
    error.add_note(f"in a worker process:\n{text}")
    return error
