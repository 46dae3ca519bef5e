"""How a run that somebody asks for becomes one that can be carried out, and is.

Does not know: who asks, how any part works.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from stalegrid.config import Settings
from stalegrid.engines import ending_in_order, refuse_contexts, torchrun
from stalegrid.observe import Callback, Logger, find_callbacks, find_loggers, own_callbacks, own_copies
from stalegrid.plans import Membership, Task
from stalegrid.runs.asked import Asked
from stalegrid.runs.going_on import AUTO, goes_on
from stalegrid.runs.here import on_this_host
from stalegrid.runs.joined import on_torchrun
from stalegrid.runs.results import Result
from stalegrid.transfer import check_start, start_of


def execute(
    task: Task,
    settings: Settings,
    *,
    resume: Path | str | None = None,
    reshape: bool = False,
    start_from: Path | str | None = None,
    membership: Membership | None = None,
    callbacks: Sequence[Callback] = (),
    loggers: Sequence[str | Logger] = (),
    quiet: bool = False,
    keep_units: bool = False,
) -> Result:
    """Train a task; see :func:`stalegrid.train`.

    Args:
        task: what is trained.
        settings: how; where they also say what, they are written to the folder whole.
        resume: what the run goes on from.
        reshape: whether it goes on in another shape.
        start_from: what it begins with.
        membership: groups that it goes on without, and that came back; as it was before, if left out.
        callbacks: called with what is told.
        loggers: where records go too.
        quiet: whether to print nothing.
        keep_units: whether to keep the parameters of every unit in the folder too.
    """
    refuse_contexts()
    if keep_units and (task.source is not None or settings.output.evaluation == "pipeline"):
        # The observer alone has those of every unit.
        settings = replace(settings, output=replace(settings.output, evaluation="whole"))
    start = start_of(settings.output.folder, resume if reshape else None, start_from)
    settings, source = goes_on(settings, None if reshape else resume)
    check_start(source, start)
    given, task = task, start.into(task, settings.training)
    found = find_loggers(settings.output.loggers, loggers, settings.output.folder)
    called = own_callbacks([*find_callbacks(settings.output.callbacks), *callbacks])
    if membership is None:
        membership = Membership.of({} if source is None else source.manifest)
    anew = source is None and str(resume) == AUTO
    kept, hosts = own_copies(found, "logger"), 1 if source is None else source.manifest.get("hosts", 1)
    asked = Asked(
        task,
        settings,
        called,
        kept,
        quiet,
        keep_units,
        source,
        membership,
        hosts,
        anew,
        start,
        task if start_from else given,
    )
    with ending_in_order():
        if settings.engine.kind == "processes" and torchrun.active():
            return on_torchrun(asked)
        return on_this_host(asked)
