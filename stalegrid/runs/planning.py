"""How a run is planned: whatever can be settled and checked before anything starts is.

Does not know: how plans are made, how they are carried out.
"""

import math
from pathlib import Path

import torch

from stalegrid.checkpoints import (
    FOLDER,
    Checkpoint,
    check_dealt,
    check_first,
    check_free,
    check_left,
    check_origin,
    check_same,
    check_settings,
    other_bits,
)
from stalegrid.config import Settings
from stalegrid.engines import Measured, computing, homes, profile, torchrun, use_device
from stalegrid.errors import ConfigError
from stalegrid.limits import BATCHES, PRODUCTS, Limits
from stalegrid.methods import Method, find
from stalegrid.observe import tell
from stalegrid.partition import check_on
from stalegrid.plans import Plan, ServedPlan, Task, cast_model, dealt_by, make_batches, origin_of, plan_of, precision_of
from stalegrid.runs.asked import Asked
from stalegrid.runs.bearing import bearing, limits_of
from stalegrid.runs.fitting import fitted
from stalegrid.runs.keeping import bits
from stalegrid.seeds import kept
from stalegrid.transfer import start_of
from stalegrid.written import exists


def planned(asked: Asked) -> Plan | ServedPlan:
    """Return the plan of a run, once everything is settled and checked.

    Raises:
        ConfigError: something cannot be run.
    """
    plan = prepare(asked.task, asked.settings, asked.source, anew=asked.anew)
    if asked.settings.output.limits and asked.source is None:
        plan = bearing(asked.task, asked.settings, plan)
    return fitted(asked, plan)


def planned_from(asked: Asked, source: Checkpoint) -> Plan | ServedPlan:
    """Return the plan of a run that goes on from a checkpoint, in the folder that it has already."""
    return fitted(asked, _planned_again(asked.task, asked.settings, source))


def planned_alike(asked: Asked, measured: Measured) -> Plan | ServedPlan:
    """Return the plan of a run that another process has planned, with what that one measured."""
    with computing(asked.settings.engine.threads, sparing=asked.task.source is not None):
        return fitted(asked, plan_of(asked.task, measured.into(asked.settings), measured.table))


def prepare(
    task: Task, settings: Settings, source: Checkpoint | None = None, *, anew: bool = False
) -> Plan | ServedPlan:
    """Settle and check everything, the machine included, before anything starts.

    Args:
        task: what is trained.
        settings: how.
        source: what the run goes on from.
        anew: whether it may begin in the folder of one like it that came to no checkpoint.

    Raises:
        ConfigError: something cannot be run.
    """
    engine, folder = settings.engine, settings.output.folder
    if not 0 < engine.deadline < math.inf:
        raise ConfigError(f"the deadline must be a positive number of seconds (deadline: {engine.deadline})")
    _check_folder(folder, source, anew=anew)
    device = use_device(engine.device, 0)
    plan = _planned(task, settings) if source is None else _planned_again(task, settings, source)
    if device.type != "cpu" and isinstance(plan, Plan) and plan.grid.stages > 1:
        _check_on(device, task, settings, plan)
    if anew and folder is not None and exists(folder):
        check_same(folder, plan.settled(settings).plain(), _measured(settings))
    if not engine.virtual and not torchrun.active():
        homes(plan.program, processes(plan, settings) + 1, spare=True)
    return plan


def find_limits(
    task: Task,
    settings: Settings,
    start_from: Path | str | None = None,
    batches: int = BATCHES,
    products: int = PRODUCTS,
) -> Limits:
    """Plan a run, and say which rates it bears.

    Args:
        task: what is trained.
        settings: how.
        start_from: file of a model at which curvature is measured; the task's own if left out.
        batches: of which the loss is taken.
        products: with the Hessian, at most, for every stage.

    Raises:
        ConfigError: it cannot be run, or curvature cannot be measured.
    """
    task = start_of(None, None, start_from).into(task, settings.training)
    return limits_of(task, settings, prepare(task, settings), batches, products)


def _check_on(device: torch.device, task: Task, settings: Settings, plan: Plan) -> None:
    """Hold the stages against the model where they will train too, and leave that memory to them."""
    batches = make_batches(task, settings.training, plan.grid.groups, plan.schedule.micro_batches)
    sparing = computing(settings.engine.threads, sparing=task.source is not None)
    with sparing, kept(device), precision_of(settings.training).on(device):
        model = task.tried(cast_model(task, settings.training))
        check_on(device, model, plan.partition, batches.inputs(0, 0), batches.form)
    torch.cuda.empty_cache()


def _check_folder(folder: Path | None, source: Checkpoint | None, *, anew: bool) -> None:
    """Refuse a folder that is there, but for a run that goes on or begins anew in it.

    Raises:
        ConfigError: it cannot be taken.
    """
    if folder is None or not exists(folder):
        return
    if source is not None:
        check_free(folder / FOLDER)
    elif anew:
        check_left(folder)
    else:
        raise ConfigError(f"the output folder exists (out: {folder}); name a new one or remove it")


def _measured(settings: Settings) -> list[str]:
    """Return what was not asked for, but is measured, and may be otherwise another time."""
    cuts = ["grid.cuts"] if settings.grid.cuts is None else []
    return cuts + (["method.staleness"] if settings.method.staleness == "auto" else [])


def _planned(task: Task, settings: Settings) -> Plan | ServedPlan:
    unknown = settings.method.staleness == "auto" and settings.devices.costs is None
    with computing(settings.engine.threads, sparing=task.source is not None):
        # Not for learners, whose plan refuses a staleness: to measure first would take long.
        measured = unknown and isinstance(find(settings.method.name), Method)
        table = profile(task, settings, settings.engine) if measured else None
        return plan_of(task, settings, table, virtual=settings.engine.virtual)


def _planned_again(task: Task, settings: Settings, source: Checkpoint) -> Plan | ServedPlan:
    """Return the plan of a run that goes on, with what it measured at its beginning."""
    check_first(source, settings.plain())
    check_origin(source, origin_of(task))
    for line in other_bits(source, bits(settings)):
        tell(line, "stderr")
    measured = Measured.read(source.manifest["measured"].encode())
    with computing(settings.engine.threads, sparing=task.source is not None):
        plan = plan_of(task, measured.into(settings), measured.table, virtual=settings.engine.virtual)
    check_settings(source, plan.settled(settings).plain())
    check_dealt(source, None if (dealt := dealt_by(plan)) is None else dealt.digest)
    return plan


def processes(plan: Plan | ServedPlan, settings: Settings) -> int:
    """Return how many processes share the units of a plan."""
    return len(plan.program.units) if settings.engine.processes is None else settings.engine.processes
