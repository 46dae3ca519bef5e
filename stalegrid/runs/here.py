"""A run on this host: in processes that are started for it, or in this one.

Does not know: how a run is planned, what engines do.
"""

import sys
import warnings
from collections.abc import Callable
from dataclasses import replace

from stalegrid.checkpoints import FOLDER, forget_after, newest
from stalegrid.config import Settings
from stalegrid.engines import KEPT, Job, launch, torchrun
from stalegrid.errors import GroupLost
from stalegrid.observe import cursor_kept, restore
from stalegrid.report import interrupted_whole, read_model, read_summary
from stalegrid.runs.announcing import announce_run
from stalegrid.runs.asked import Asked
from stalegrid.runs.groups import coming, going, there_again, too_late
from stalegrid.runs.jobs import job_of
from stalegrid.runs.leaving import leaving, left
from stalegrid.runs.planning import planned, planned_from, processes
from stalegrid.runs.results import Result, models, result
from stalegrid.runs.simulated import simulated


def on_this_host(asked: Asked) -> Result:
    """Carry out a run in processes that this one starts, or in this one alone, and return what came of it."""
    task, settings = asked.task, asked.settings
    get_ready(settings)
    asked = there_again(asked)
    plan = planned(asked)
    with asked.folder() as folder, cursor_kept():
        job = job_of(asked, plan, folder)
        announce_run(asked, plan, folder)
        try:
            _carry_out(asked, job)
        except KeyboardInterrupt:
            # In a notebook, or at another prompt, somebody stays who can use what there is.
            if not hasattr(sys, "ps1") or not interrupted_whole(folder):
                raise
            warnings.warn("interrupted: the result is the model as it was measured last", stacklevel=4)
        summary = read_summary(folder)
        empty = bool(plan.saves_parts) and task.source is not None
        kept = models(task, settings, summary, empty=empty)
        for which, model in () if empty else kept.items():
            restore(model, *read_model(folder, which))
        return result(kept, task, settings, summary)


def _carry_out(asked: Asked, job: Job) -> None:
    """Do a job to its end, with whichever groups there are by and by.

    Raises:
        Interrupted: the run was asked to leave, and has.
    """
    with leaving(job) as leave:
        while (changed := _until_others(asked, job, leave)) is not None:
            asked = changed
            assert asked.source is not None  # the groups change where the run was saved
            forget_after(job.folder / FOLDER, asked.source.version)
            job = job_of(asked, planned_from(asked, asked.source), job.folder)
    too_late(job.folder)
    asked.end(job.folder, read_summary(job.folder))


def _until_others(asked: Asked, job: Job, leave: Callable[[], bool]) -> Asked | None:
    """Do a job until its groups are to be others, and return with which it goes on; None at its end."""
    groups, folder = job.plan.grid.groups, job.folder

    def over() -> bool:
        return leave() or bool(coming(asked, groups, folder))

    try:
        if _done(asked, job, over):
            return None
    except GroupLost as problem:
        source = newest(folder)
        if source is None:
            raise
        return going(asked, source, problem)
    source = newest(folder)
    if leave() or source is None:
        raise left(folder, named=asked.named)
    return there_again(replace(asked, source=source))


def _done(asked: Asked, job: Job, over: Callable[[], bool]) -> bool:
    if asked.settings.engine.virtual:
        return simulated(job, over)
    return launch(job, processes(job.plan, asked.settings), over)


def get_ready(settings: Settings) -> None:
    """Let libraries load for worker processes that will be needed, beside whatever is done until then."""
    if settings.engine.kind == "processes" and not torchrun.active():
        KEPT.begin()
