"""What engines are given to do of a run.

Does not know: how they do it.
"""

from functools import partial
from pathlib import Path

from stalegrid.engines import Job
from stalegrid.observe import in_notebook, make_sink
from stalegrid.plans import Plan, ServedPlan, facts
from stalegrid.runs.asked import Asked
from stalegrid.runs.diagnosing import diagnoses_of
from stalegrid.runs.keeping import keeping
from stalegrid.transfer import ANEW


def job_of(asked: Asked, plan: Plan | ServedPlan, folder: Path) -> Job:
    """Return what is done of a run with its plan, in its folder."""
    settings = asked.settings
    limit = 2 * plan.splits if isinstance(plan, ServedPlan) else None
    written = plan.settled(settings).plain()
    told = settings.output, asked.callbacks, asked.loggers, written, asked.quiet, in_notebook(), asked.keep_units
    again = asked.source is not None
    begun = asked.begun_with(plan)
    told_of_plan = {**facts(plan), **({"start": begun} if begun else {})}
    sink = partial(make_sink, folder, told_of_plan, limit, plan.program.updates, *told, again, plan.saves_parts)
    kept = keeping(asked, plan, folder, written)
    trace = settings.output.trace
    start = asked.start if asked.source is None else ANEW
    begins = partial(start.opened, asked.task, plan)
    emulate, diagnoses = settings.devices.emulate, diagnoses_of(asked, plan)
    return Job(asked.task, plan, settings.engine, emulate, trace, sink, folder, kept, begins, diagnoses)
