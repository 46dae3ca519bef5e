"""What every process of a run is given, and how it gets to processes of this host.

Does not know: who starts them, what they do with it.

A job holds the user's own objects, so it is pickled.  It travels as an open file that processes inherit, which nobody
else can open, and never over a socket.
"""

import fcntl
import mmap
import pickle
import tempfile
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch
from torch import Tensor

from stalegrid.agents import Beginning, Diagnosing
from stalegrid.engines.distributed import parts
from stalegrid.engines.saving import Keeping
from stalegrid.engines.settings import EngineSettings
from stalegrid.engines.surroundings import Surroundings
from stalegrid.errors import ConfigError
from stalegrid.observe import Saved, Sink, name_of_trace, save_part
from stalegrid.plans import Plan, ServedPlan, Task


@dataclass(frozen=True)
class Job:
    """What every process of a run is given.

    Args:
        task: what is trained.
        plan: how.
        engine: where.
        emulate: whether actions take as long as the costs say.
        trace: whether it is noted what every unit does when.
        sink: makes the place where the observer writes; called in the observer's process only.
        folder: of the run, for what is written while it goes on: the order of deliveries, and the trace.
        keeping: how it is saved; None where it is not.
        begins: makes what units begin with beside the task's model; called in every process.
        diagnoses: makes who diagnoses the run; called in the observer's process only; None where nobody does.
    """

    task: Task
    plan: Plan | ServedPlan
    engine: EngineSettings
    emulate: bool
    trace: bool
    sink: Callable[[], Sink]
    folder: Path
    keeping: Keeping | None = None
    begins: Callable[[], Beginning] = Beginning
    diagnoses: Callable[[torch.device], Diagnosing] | None = None

    @property
    def traced(self) -> Path:
        """The file of the trace: a run that goes on leaves what was traced before alone."""
        source = None if self.keeping is None else self.keeping.source
        return self.folder / name_of_trace(0 if source is None else source.version)

    def save_part(self, version: int, stage: int, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
        """Write what a stage has of the model; see :func:`stalegrid.observe.save_part`."""
        save_part(self.folder, version, stage, saved, tensors)


def write_job(job: Job) -> IO[bytes]:
    """Write a job, and what surrounds it here, to a file without a name, of which nothing can stay behind.

    Raises:
        ConfigError: it cannot be sent to another process, or there is no room for it.
    """
    with ExitStack() as stack:
        try:
            file = _nameless()
            stack.callback(_close, file)
            pickle.dump(Surroundings.here(), file)
            parts.write(job, file)
            file.flush()
        except OSError as problem:
            raise ConfigError(
                "the model and the data find no room on their way to worker processes (TMPDIR: "
                f"{tempfile.gettempdir()}): {problem.strerror}; let TMPDIR name a larger place, or use the simulator"
            ) from problem
        except Exception as problem:  # what is in a task is the user's: anything can be raised
            raise ConfigError(
                f"the model, data, loss or factories cannot be sent to worker processes: {problem}; remove what cannot "
                "be pickled, or use the simulator"
            ) from problem
        stack.pop_all()
        return file


def _close(file: IO[bytes]) -> None:
    with suppress(OSError):  # what is still to be written finds no room either
        file.close()


def _nameless() -> IO[bytes]:
    """Open a file without a name, never under the number of a standard stream, which is free where there is none."""
    with tempfile.TemporaryFile(prefix="stalegrid-") as file:
        return open(fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, 3), "w+b")


def read_job(file: int) -> Job:
    """Read a job that this process was given as an open file, and make what surrounds it as it was.

    The data is read where somebody asks for it; see :mod:`stalegrid.engines.distributed.parts`.
    """
    # All workers share one position in the file; a map has its own.
    with mmap.mmap(file, 0, access=mmap.ACCESS_READ) as content:
        pickle.load(content).apply()
        job: Job = parts.read(content, file)
    return job
