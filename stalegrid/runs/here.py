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
from stalegrid.observe import cursor_kept, restore, tell
from stalegrid.plans import LostGroup
from stalegrid.report import interrupted_whole, read_model, read_summary
from stalegrid.runs.announcing import announce_run
from stalegrid.runs.asked import Asked
from stalegrid.runs.jobs import job_of
from stalegrid.runs.leaving import leaving, left
from stalegrid.runs.planning import planned, planned_from, processes
from stalegrid.runs.results import Result, models, result
from stalegrid.runs.simulated import simulated


def on_this_host(asked: Asked) -> Result:
    """Carry out a run in processes that this one starts, or in this one alone, and return what came of it."""
    task, settings = asked.task, asked.settings
    get_ready(settings)
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
        kept = models(task, settings, summary)
        for which, model in kept.items():
            restore(model, *read_model(folder, which))
        return result(kept, task, settings, summary)


def _carry_out(asked: Asked, job: Job) -> None:
    """Do a job to its end.

    Raises:
        Interrupted: the run was asked to leave, and has.
    """
    with leaving(job) as leave:
        ended = simulated(job, leave) if asked.settings.engine.virtual else _launched(asked, job, leave)
    if not ended:
        raise left(job.folder, named=asked.named)
    asked.end(job.folder, read_summary(job.folder))


def _launched(asked: Asked, job: Job, leaving: Callable[[], bool]) -> bool:
    """Run a job in processes, and go on without groups that are lost if that is asked for."""
    while True:
        try:
            return launch(job, processes(job.plan, asked.settings), leaving)
        except GroupLost as problem:
            source = newest(job.folder)
            if source is None:
                raise
            why = str(problem).splitlines()[0]
            lost = [LostGroup(group, source.version, why) for group in problem.groups]
            named = ", ".join(map(str, problem.groups))
            tell(
                f"group {named} is gone, and the run goes on without it from version {source.version}: {why}", "stderr"
            )
            asked = replace(asked, source=source, losses=(*asked.losses, *lost))
            forget_after(job.folder / FOLDER, source.version)
            job = job_of(asked, planned_from(asked, source), job.folder)


def get_ready(settings: Settings) -> None:
    """Let libraries load for worker processes that will be needed, beside whatever is done until then."""
    if settings.engine.kind == "processes" and not torchrun.active():
        KEPT.begin()
