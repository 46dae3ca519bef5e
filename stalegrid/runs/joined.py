"""A run in the processes of a torchrun, of which this is one.

Does not know: how a run is planned, how the processes speak with each other.
"""

from dataclasses import replace
from functools import partial

from stalegrid.engines import Surroundings, torchrun
from stalegrid.observe import restore, tell
from stalegrid.plans import Plan, ServedPlan
from stalegrid.report import read_model, read_summary
from stalegrid.runs.announcing import announce_run
from stalegrid.runs.asked import Asked
from stalegrid.runs.groups import by_hosts
from stalegrid.runs.jobs import job_of
from stalegrid.runs.leaving import leaving, left
from stalegrid.runs.planning import planned, planned_alike
from stalegrid.runs.results import Result, models, result


def on_torchrun(asked: Asked) -> Result:
    """Carry out a run with the others of a torchrun, and return what came of it, the same in every process."""
    task, settings = asked.task, asked.settings
    with torchrun.joined(settings.engine.deadline) as peers:
        peers.check_same("switches of torch", lambda: Surroundings.here().text())
        peers.check_task(task)
        peers.check_same("checkpoints", lambda: "" if asked.source is None else asked.source.folder.name)
        say = partial(tell, name="stderr") if peers.rank == 0 else str
        asked = by_hosts(asked, torchrun.hosts(), say)
        # Every process has built the model itself; without a seed of the user's they differ.
        with peers.one_state(task.model):
            plan = peers.agree(settings.common(), lambda: planned(asked), partial(planned_alike, asked))
            with peers.shared(asked.folder) as folder:
                if peers.rank == 0:
                    announce_run(asked, plan, folder)
                job = job_of(asked, plan, folder)
                with leaving(job) as leave:
                    # Of a run that leaves before anything is evaluated there is no summary.
                    summary = peers.run(job, lambda: {} if _has_left(plan) else read_summary(folder), leave)
                if _has_left(plan):
                    # Nobody looks for the checkpoint before all have written their parts of it.
                    peers.check_same("versions to leave at", lambda: str(plan.program.left))
                    raise left(folder, named=asked.named)
                if peers.rank == 0:
                    asked.end(folder, summary)
                first, alone = peers.rank == 0, task.source is not None
                staged = bool(plan.saves_parts)
                kept = models(task, settings, summary, empty=staged or (alone and not first))
                for which, model in kept.items():
                    if staged:  # whose files may be on other hosts
                        model.to("meta")
                        continue
                    if first:
                        restore(model, *read_model(folder, which))
                    if not alone:
                        peers.take_state(model)
        if settings.output.folder is not None:
            settings = replace(settings, output=replace(settings.output, folder=folder))  # the first process's own
        return result(kept, task, settings, summary)


def _has_left(plan: Plan | ServedPlan) -> bool:
    return plan.program.left is not None
