"""The door: trains a model as asked, on the engine asked for, and returns what came of it.

Does not know: how any part works.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from stalegrid.agents.build import build_agents
from stalegrid.config import Settings
from stalegrid.corrections import Maker
from stalegrid.data import CropAndFlip
from stalegrid.engines.distributed import torchrun
from stalegrid.engines.distributed.job import Job
from stalegrid.engines.distributed.launch import launch
from stalegrid.engines.distributed.peers import layout_of_state
from stalegrid.engines.distributed.warm import KEPT
from stalegrid.engines.distributed.world import homes
from stalegrid.engines.machine import computing, use_device
from stalegrid.engines.noted import noted
from stalegrid.engines.recorded import recorded
from stalegrid.engines.signals import ending_in_order
from stalegrid.engines.simulator import simulate
from stalegrid.engines.surroundings import Surroundings, refuse_contexts
from stalegrid.errors import ConfigError, NonFiniteLoss
from stalegrid.files import exists
from stalegrid.material import cast_model
from stalegrid.methods import find_served
from stalegrid.observe.console import cursor_kept
from stalegrid.observe.records import Record
from stalegrid.observe.sinks import Dated
from stalegrid.observe.state import restore
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.told import read_model, read_summary
from stalegrid.observe.trace import TRACE, write_trace
from stalegrid.plan import Plan, make_plan
from stalegrid.profile import profile
from stalegrid.results import announce, open_folder, sink_maker
from stalegrid.seeds import kept
from stalegrid.served import ServedPlan, make_served_plan
from stalegrid.task import Task, fingerprint
from stalegrid.timing.clock import Clock
from stalegrid.timing.costs import NANOSECONDS


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        model: a copy of the user's model with the mean parameters and buffers over groups, in evaluation mode.
        summary: the content of ``summary.json``.
        folder: where the results are; None if no folder was asked for.
    """

    model: nn.Module
    summary: Record
    folder: Path | None

    @property
    def test_accuracy(self) -> float | None:
        """Share of test samples whose largest output is the target, of the last version."""
        accuracy: float | None = self.summary["test_accuracy"]
        return accuracy


def train(
    model: nn.Module,
    data: Dataset[Any],
    *,
    loss: Callable[..., Tensor],
    optimizer: Callable[[list[nn.Parameter]], Optimizer],
    scheduler: Callable[[Optimizer], LRScheduler] | None = None,
    test: Dataset[Any] | None = None,
    augment: CropAndFlip | None = None,
    corrections: Sequence[str | Maker] | None = None,
    quiet: bool = False,
    **settings: Any,
) -> Result:
    """Train a model on a grid of groups x stages.

    Under torchrun the processes that run this script share the units; alone, it starts its own.

    Args:
        model: maps a batch of inputs to a tensor or a tuple of tensors; left as it is.
        data: map-style data set of (input, target) pairs.
        loss: (outputs, targets) -> loss averaged over the samples, shape ().
        optimizer: parameters -> a torch optimizer; called once a unit.
        scheduler: optimizer -> a torch scheduler, stepped once an update.
        test: map-style data set to measure the mean model on.
        augment: crop and flip of the training images.
        corrections: of gradients and learning rates, by name or as what makes the user's own for a unit, such as a
            subclass of :class:`stalegrid.Correction`; named ones act first, then the own ones, then ``clip``; they take
            the place of the method's, such as FDG's ``shrink``, which act if this is left out.
        quiet: whether to print nothing.
        settings: fields of :class:`stalegrid.config.Settings`, such as ``groups`` and ``stages``.

    Returns:
        The trained model and its summary, the same in every process.

    Raises:
        ConfigError: something cannot be run; nothing was started.
        TrainingError: a loss or the model is not finite, a sample cannot be used, or a gradient is too stale.
        EngineError: a process died or stalled.
        OutputError: results cannot be written; what was written before stays.
    """
    known = {f.name for f in dataclasses.fields(Settings)}
    if unknown := set(settings) - known:
        raise ConfigError(f"unknown settings: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    if isinstance(corrections, str) or callable(corrections):
        raise ConfigError(f"corrections is a list (corrections: {corrections!r}); put it into brackets")
    own = tuple(c for c in corrections or () if not isinstance(c, str))
    if corrections is not None:
        settings["corrections"] = [c for c in corrections if isinstance(c, str)]
    task = Task(model, data, loss, optimizer, scheduler, test, augment, own)
    return execute(task, Settings(**settings), quiet=quiet)


def execute(task: Task, settings: Settings, *, quiet: bool = False, keep_units: bool = False) -> Result:
    """Train a task; see :func:`train`.

    Args:
        task: what is trained.
        settings: how; a :class:`~stalegrid.config.RunConfig` is written to the folder whole.
        quiet: whether to print nothing.
        keep_units: whether to keep the parameters of every unit in the folder too.
    """
    refuse_contexts()
    with ending_in_order():
        if settings.engine == "processes" and torchrun.active():
            return _on_torchrun(task, settings, quiet, keep_units)
        return _on_this_host(task, settings, quiet, keep_units)


def _on_this_host(task: Task, settings: Settings, quiet: bool, keep_units: bool) -> Result:
    get_ready(settings)
    plan = prepare(task, settings)
    with open_folder(settings.out) as folder, cursor_kept():
        announce(plan, settings, folder, quiet)
        sink = sink_maker(plan, folder, quiet, keep_units)
        if settings.engine == "simulator":
            _simulate(Job(task, settings, plan, sink, folder))
        else:
            launch(Job(task, settings, plan, sink, folder), _processes(plan, settings))
        model = cast_model(task, settings)
        restore(model, *read_model(folder))
        return _result(model, task, settings, read_summary(folder))


def get_ready(settings: Settings) -> None:
    """Let libraries load for worker processes that will be needed, beside whatever is done until then."""
    if settings.engine == "processes" and not torchrun.active():
        KEPT.begin()


def prepare(task: Task, settings: Settings) -> Plan | ServedPlan:
    """Settle and check everything, the machine included, before anything starts.

    Raises:
        ConfigError: something cannot be run.
    """
    if not 0 < settings.deadline < math.inf:
        raise ConfigError(f"the deadline must be a positive number of seconds (deadline: {settings.deadline})")
    if settings.out is not None and exists(settings.out):
        raise ConfigError(f"the output folder exists (out: {settings.out}); name a new one or remove it")
    use_device(settings.device, 0)
    plan = _planned(task, settings)
    if settings.engine == "processes" and not torchrun.active():
        homes(plan.program, _processes(plan, settings) + 1, spare=True)
    return plan


def _planned(task: Task, settings: Settings) -> Plan | ServedPlan:
    method = find_served(settings.method)
    with computing(settings.threads):
        if method is not None:
            return make_served_plan(task, settings, method)
        measured = settings.staleness == "auto" and settings.costs is None
        return make_plan(task, settings, profile(task, settings) if measured else None)


def _processes(plan: Plan | ServedPlan, settings: Settings) -> int:
    return len(plan.program.units) if settings.processes is None else settings.processes


def _on_torchrun(task: Task, settings: Settings, quiet: bool, keep_units: bool) -> Result:
    with torchrun.joined(settings.deadline) as peers:
        peers.check_same("switches of torch", lambda: Surroundings.here().text())
        peers.check_same("models", lambda: layout_of_state(task.model))
        peers.check_same("data", lambda: fingerprint(task))
        # Every process has built the model itself; without a seed of the user's they differ.
        with peers.one_state(task.model):
            settings, plan = peers.agree(settings, lambda: prepare(task, settings), partial(_planned, task))
            with peers.shared(lambda: open_folder(settings.out)) as folder:
                if peers.rank == 0:
                    announce(plan, settings, folder, quiet)
                sink = sink_maker(plan, folder, quiet, keep_units)
                summary = peers.run(Job(task, settings, plan, sink, folder), lambda: read_summary(folder))
                model = cast_model(task, settings)
                if peers.rank == 0:
                    restore(model, *read_model(folder))
                peers.take_state(model)
        return _result(model, task, settings, summary)


def _simulate(job: Job) -> None:
    """Run all agents here; in virtual time where costs are known."""
    device = use_device(job.settings.device, 0)
    program, model, traced = job.plan.program, job.plan.time_model, job.settings.trace
    timeline = Timeline(virtual=model is not None)
    with computing(job.settings.threads), kept(device), closing(job.sink()) as sink:
        if model is None:
            agents = build_agents(job.task, job.settings, job.plan, program.agents, device, sink)
            with noted(agents, job.folder) as agents:
                simulate(program, recorded(agents, timeline, device) if traced else agents)
            timeline = Timeline.joined([timeline])
        else:
            clock = Clock(program, model, timeline if traced else None)
            dated = Dated(sink, lambda: clock.now / (1000 * NANOSECONDS))
            agents = build_agents(job.task, job.settings, job.plan, program.agents, device, dated)
            with noted(agents, job.folder) as agents:
                simulate(program, agents, before=clock.date)
    if traced:
        write_trace(job.folder / TRACE, timeline)


def _result(model: nn.Module, task: Task, settings: Settings, summary: Record) -> Result:
    """Return what came of a run, which has written it already.

    Raises:
        NonFiniteLoss: the model at the end has no finite test loss.
    """
    if task.test is not None and summary["test_loss"] is None:
        raise NonFiniteLoss(
            f"the test loss at the end is infinite or no number (version: {summary['version']}); lower the learning "
            "rate or the staleness, or clip the gradients"
        )
    return Result(model.eval(), summary, settings.out)
