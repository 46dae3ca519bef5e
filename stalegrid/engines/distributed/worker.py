"""One process of a run: enters the world, builds its agents, runs them.

Does not know: who started it or who else fails.

Forked by :mod:`stalegrid.engines.distributed.forking`; under torchrun the user's own script calls
:func:`work` through :func:`stalegrid.train.train`.
"""

import os
import pickle
import shutil
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext, suppress
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed import FileStore, Store  # type: ignore[attr-defined]

from stalegrid.agents import Agent, build_agents
from stalegrid.data import Readers
from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.host import run
from stalegrid.engines.distributed.job import Job, read_job
from stalegrid.engines.distributed.meeting import meet, patience_of
from stalegrid.engines.distributed.noting import as_text, from_text
from stalegrid.engines.distributed.private import read_secret
from stalegrid.engines.distributed.proof import prove
from stalegrid.engines.distributed.world import World, enter, homes
from stalegrid.engines.machine import computing, use_device
from stalegrid.engines.meetings import meetings_noted
from stalegrid.engines.noting import noted
from stalegrid.engines.pacing import paced
from stalegrid.engines.recording import recorded
from stalegrid.errors import OutputError
from stalegrid.observe import Nowhere, Stream, Timeline, write_trace
from stalegrid.programs import OBSERVER, Unit
from stalegrid.seeds import kept
from stalegrid.timing import Clock

MET = "met"
"""The file that says that all processes have found each other and are ready."""

STORE = "store"
"""The file through which processes of one host find each other."""

LONG = 3600.0
"""Seconds that the observer's process may need at the end for what is left to it, such as measuring the model."""


LEAVE = "leave"
"""The file that says that somebody wants the run to leave."""

LEFT = "left"
"""The file that says that it has left."""

ALIVE = "alive"
"""The file that the observer's process touches as long as it is not stopped: in the end nobody else waits for it."""

_BEATS = 4  # signs of life within the deadline, at least
_OFTEN = 5.0  # seconds between two, at most


def work(
    job: Job,
    local_rank: int,
    *,
    spare: bool,
    met: Callable[[], object] = lambda: None,
    leaving: Callable[[], bool] = lambda: False,
) -> bool:
    """Run this process's agents to the end; the default process group must exist.

    Args:
        job: what is to be done.
        local_rank: number of this process on its host.
        spare: whether the last process is the observer's alone.
        met: called when all processes are ready to begin.
        leaving: whether somebody wants the run to leave.

    Returns:
        Whether the run came to its end, and did not leave before.
    """
    engine, plan = job.engine, job.plan
    device = use_device(engine.device, local_rank)
    world = enter(homes(plan.program, dist.get_world_size(), spare=spare), device, engine.deadline)
    made = job.sink() if OBSERVER in world.here else Nowhere()
    sparing = job.task.source is not None
    with computing(engine.threads, sparing=sparing), kept(device), closing(made) as sink, ExitStack() as stack:
        readers = Readers(stack, engine.deadline)

        def build() -> dict[Unit, Agent]:
            given = sink, readers, job.begins(), job.save_part, job.diagnoses
            agents = build_agents(job.task, plan, world.here, device, *given)
            return paced(plan, agents, job.emulate)

        # Who is slow to begin is waited for here, so that no deadline of the run counts that time.
        agents = talk.everybody(build, engine.deadline)
        job.task.let_go()
        met()
        timeline = Timeline() if job.trace else None
        again = plan.program.saves.since > 0
        with (
            noted(agents, job.folder, again=again) as agents,
            meetings_noted(agents, plan.program, job.folder) as agents,
            kept_by(job, agents, device, leaving) as agents,
        ):
            if timeline is not None:
                agents = recorded(agents, timeline, device)
            run(plan.program, agents, world, plan.layouts, engine.deadline, timeline)
        ended = plan.program.left is None
        if ended:
            sink.finish()
        if timeline is not None:
            _write(job.traced, timeline, world, max(engine.deadline, LONG))
        return ended


def kept_by(
    job: Job,
    agents: dict[Unit, Agent],
    device: torch.device,
    leaving: Callable[[], bool],
    clock: Clock | None = None,
) -> AbstractContextManager[dict[Unit, Agent]]:
    """Let the agents of this process be saved and loaded, if the job says so."""
    if job.keeping is None:
        return nullcontext(agents)
    return job.keeping.saving(agents, job.plan.program, device, leaving, clock)


def _write(path: Path, timeline: Timeline, world: World, patience: float) -> None:
    """Write what all processes noted, but those that are gone, where the observer lives."""
    writer = world.home[OBSERVER]
    parts = talk.collect(as_text(timeline), writer, patience)
    if world.rank == writer:
        write_trace(path, Timeline.joined(map(from_text, parts)))


def main(folder: Path, rank: int, size: int, file: int) -> None:
    """Be a worker, to the end of this process; standard input closes when the starter is gone.

    Args:
        folder: through which processes find each other, and tell their starter of errors.
        rank: of this one.
        size: number of processes.
        file: the open file that holds the job.
    """
    threading.Thread(target=_end_with_starter, args=(folder,), daemon=True).start()
    told = (folder / f"part-{rank}").open("wb")  # now, since the error may be that no more files can be opened
    try:
        job = read_job(file)
        if rank == size - 1:
            pause = min(job.engine.deadline / _BEATS, _OFTEN)
            threading.Thread(target=_show_life, args=(folder / ALIVE, pause), name="alive", daemon=True).start()
        meet(lambda: (_store(folder, size), rank, size), patience_of(job.engine.deadline), str(folder))
        prove(read_secret(folder), job.engine.deadline)
        if not work(job, rank, spare=True, met=(folder / MET).touch, leaving=(folder / LEAVE).exists):
            (folder / LEFT).touch()
    except BaseException as error:
        with told:
            told.write(_pickled(error))
        (folder / f"part-{rank}").replace(folder / f"error-{rank}")  # whole as soon as it is there
        _leave(1)
    _leave(0)


def _pickled(error: BaseException) -> bytes:
    """Return the error at hand as its starter reads it."""
    text = traceback.format_exc()
    try:
        told = pickle.dumps((error, text))
        pickle.loads(told)  # an error whose class cannot be rebuilt is told as text
    except Exception:
        told = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    return told


def _store(folder: Path, size: int) -> Store:
    return FileStore(str(folder / STORE), size)


def _leave(status: int) -> None:
    for name in ("stdout", "stderr"):
        with suppress(OutputError):
            Stream(name).flush()
    os._exit(status)  # channels may hang in C++; nothing of theirs is worth waiting for


def _show_life(file: Path, pause: float) -> None:
    while True:
        with suppress(OSError):  # the folder is removed when all is over
            file.touch()
        time.sleep(pause)


def _end_with_starter(folder: Path) -> None:
    while os.read(0, 4096):  # not through sys.stdin: a child, such as reads samples ahead, would wait for its lock
        pass
    shutil.rmtree(folder, ignore_errors=True)  # a starter that was killed could not
    os._exit(1)
