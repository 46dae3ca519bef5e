"""One process of a run: enters the world, builds its agents, runs them.

Does not know: who started it or who else fails.

Started by :mod:`stalegrid.engines.distributed.launch`; under torchrun the user's own script calls
:func:`work` through :func:`stalegrid.train.train`.
"""

import os
import pickle
import sys
import threading
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import cloudpickle
import torch.distributed as dist
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from stalegrid.agents.build import build_agents
from stalegrid.config import Settings
from stalegrid.engines.distributed.host import run
from stalegrid.engines.distributed.world import World, enter, homes
from stalegrid.engines.machine import computing, use_device
from stalegrid.engines.noted import noted
from stalegrid.engines.pacing import paced
from stalegrid.engines.recorded import recorded
from stalegrid.grid import OBSERVER
from stalegrid.observe.records import Nowhere, Sink
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import TRACE, write_trace
from stalegrid.plan import Plan
from stalegrid.seeds import kept
from stalegrid.served import ServedPlan
from stalegrid.task import Task

MET = "met"
"""The file that says that all processes have found each other."""

START = 600.0
"""Seconds that processes have to find each other; the starter ends them at once if one of them fails."""


@dataclass(frozen=True)
class Job:
    """What every process of a run is given.

    Args:
        task: what is trained.
        settings: how.
        plan: made of both.
        sink: makes the place where the observer writes; called in the observer's process only.
        folder: of the run, for what is written while it goes on: the order of deliveries, and the trace.
    """

    task: Task
    settings: Settings
    plan: Plan | ServedPlan
    sink: Callable[[], Sink]
    folder: Path


def work(job: Job, local_rank: int, *, spare: bool, met: Callable[[], object] = lambda: None) -> None:
    """Run this process's agents to the end; the default process group must exist.

    Args:
        job: what is to be done.
        local_rank: number of this process on its host.
        spare: whether the last process is the observer's alone.
        met: called when all processes have found each other.
    """
    settings, plan = job.settings, job.plan
    device = use_device(settings.device, local_rank)
    world = enter(homes(plan.program, dist.get_world_size(), spare=spare), device)
    met()
    made = job.sink() if OBSERVER in world.here else Nowhere()
    with computing(settings.threads), kept(device), closing(made) as sink:
        agents = paced(plan, build_agents(job.task, settings, plan, world.here, device, sink), settings.emulate)
        timeline = Timeline() if settings.trace else None
        with noted(agents, job.folder) as agents:
            if timeline is not None:
                agents = recorded(agents, timeline, device)
            run(plan.program, agents, world, plan.layout, settings.deadline, timeline)
        if timeline is not None:
            _write(job.folder / TRACE, timeline, world)


def _write(path: Path, timeline: Timeline, world: World) -> None:
    """Write what all processes noted, where the observer lives."""
    writer = world.home[OBSERVER]
    if world.rank != writer:
        dist.send_object_list([timeline], dst=writer)
        return
    parts = [timeline]
    for rank in range(dist.get_world_size()):
        if rank != writer:
            part: list[Timeline] = [Timeline()]
            # A collective would fail as a whole where a learner is gone; what it noted is lost, the rest is not.
            with suppress(RuntimeError):
                dist.recv_object_list(part, src=rank)
            parts += part
    write_trace(path, Timeline.joined(parts))


def main() -> None:
    """Run a worker: ``worker FOLDER RANK SIZE PORT``; standard input closes when the starter is gone."""
    folder, rank, size, port = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), int(sys.argv[4])
    threading.Thread(target=_end_with_starter, daemon=True).start()
    try:
        job: Job = cloudpickle.loads((folder / "job").read_bytes())
        patience = timedelta(seconds=max(job.settings.deadline, START))
        store = TCPStore("127.0.0.1", port, is_master=False, timeout=patience)
        dist.init_process_group("gloo", store=store, rank=rank, world_size=size, timeout=patience)
        work(job, rank, spare=True, met=(folder / MET).touch)
    except BaseException as error:
        _tell(folder / f"error-{rank}", error)
        _leave(1)
    _leave(0)


def _leave(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)  # channels may hang in C++; nothing of theirs is worth waiting for


def _end_with_starter() -> None:
    sys.stdin.buffer.read()
    os._exit(1)


def _tell(path: Path, error: BaseException) -> None:
    text = traceback.format_exc()
    try:
        told = pickle.dumps((error, text))
        pickle.loads(told)  # an error whose class cannot be rebuilt is told as text
    except Exception:
        told = pickle.dumps((RuntimeError(f"{type(error).__name__}: {error}"), text))
    part = path.with_name(f"part-{path.name}")
    part.write_bytes(told)
    part.replace(path)


if __name__ == "__main__":
    main()
