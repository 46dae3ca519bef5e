"""The door: trains a model as asked, on the engine asked for, and returns what came of it.

Does not know: how any part works.
"""

import copy
import dataclasses
import importlib.util
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torch.utils.data import Dataset

from stalegrid.agents.build import build_agents
from stalegrid.config import Settings
from stalegrid.data import CropAndFlip
from stalegrid.engines.distributed import torchrun
from stalegrid.engines.distributed.launch import launch
from stalegrid.engines.distributed.worker import Job
from stalegrid.engines.distributed.world import choose_device, homes
from stalegrid.engines.simulator import simulate
from stalegrid.errors import ConfigError
from stalegrid.observe.console import ConsoleSink
from stalegrid.observe.records import Record, Sink
from stalegrid.observe.sinks import Folder, Several, TensorBoard, read_model, read_summary
from stalegrid.plan import Plan, make_plan
from stalegrid.task import Task

CONFIG = "config.yaml"


@dataclass(frozen=True)
class Result:
    """What came of a run.

    Attributes:
        model: a copy of the user's model with the mean parameters over groups, in evaluation mode.
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
        quiet: whether to print nothing.
        settings: fields of :class:`stalegrid.config.Settings`, such as ``groups`` and ``stages``.

    Returns:
        The trained model and its summary, the same in every process.

    Raises:
        ConfigError: something cannot be run; nothing was started.
        TrainingError: a loss is not finite, or a gradient staler than declared.
        EngineError: a process died or stalled.
    """
    known = {f.name for f in dataclasses.fields(Settings)}
    if unknown := set(settings) - known:
        raise ConfigError(f"unknown settings: {', '.join(sorted(unknown))}; there are: {', '.join(sorted(known))}")
    task = Task(model, data, loss, optimizer, scheduler, test, augment)
    return execute(task, Settings(**settings), quiet=quiet)


def execute(task: Task, settings: Settings, *, quiet: bool = False, keep_units: bool = False) -> Result:
    """Train a task; see :func:`train`.

    Args:
        task: what is trained.
        settings: how; a :class:`~stalegrid.config.RunConfig` is written to the folder whole.
        quiet: whether to print nothing.
        keep_units: whether to keep the parameters of every unit in the folder too.
    """
    if torchrun.active():
        return _on_torchrun(task, settings, quiet, keep_units)
    plan = prepare(task, settings)
    processes = settings.processes or len(plan.grid)
    if settings.engine == "processes":
        homes(plan.program, processes + 1, spare=True)
    with _folder(settings) as folder:
        sink = _announce(plan, settings, folder, quiet, keep_units)
        if settings.engine == "simulator":
            _simulate(task, settings, plan, sink)
        else:
            launch(Job(task, settings, plan, sink), processes)
        return Result(_loaded(task, settings, read_model(folder)), read_summary(folder), settings.out)


def prepare(task: Task, settings: Settings) -> Plan:
    """Settle and check everything, the machine included, before anything starts.

    Raises:
        ConfigError: something cannot be run.
    """
    choose_device(settings.device, 0)
    if settings.threads < 1:
        raise ConfigError(f"arithmetic needs at least one thread (threads: {settings.threads})")
    if settings.deadline <= 0:
        raise ConfigError(f"the deadline must be positive (deadline: {settings.deadline} s)")
    if settings.out is not None and settings.out.exists():
        raise ConfigError(f"the output folder exists (out: {settings.out}); name a new one or remove it")
    with threads(settings.threads):
        return make_plan(task, settings)


@contextmanager
def threads(number: int) -> Iterator[None]:
    """Compute with some number of threads, then with as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _on_torchrun(task: Task, settings: Settings, quiet: bool, keep_units: bool) -> Result:

    def settled() -> Plan:
        plan = prepare(task, settings)
        homes(plan.program, size, spare=False)
        return plan

    with torchrun.joined(settings.deadline) as (rank, size, local_rank):
        plan = torchrun.agree(settled)
        with torchrun.shared(lambda: _folder(settings)) as folder:
            sink = _announce(plan, settings, folder, quiet or rank > 0, keep_units)
            torchrun.run(Job(task, settings, plan, sink), local_rank)
            state, summary = torchrun.agree(lambda: (read_model(folder), read_summary(folder)))
        return Result(_loaded(task, settings, state), summary, settings.out)


def _simulate(task: Task, settings: Settings, plan: Plan, sink: Callable[[], Sink]) -> None:
    device = choose_device(settings.device, 0)
    with threads(settings.threads):
        agents = build_agents(task, settings, plan, plan.program.agents, device, sink())
        simulate(plan.program, agents)


@contextmanager
def _folder(settings: Settings) -> Iterator[Path]:
    """Make the output folder, or one that is removed again if none was asked for."""
    if settings.out is not None:
        settings.out.mkdir(parents=True)
        yield settings.out
        return
    folder = Path(tempfile.mkdtemp(prefix="stalegrid-run-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _announce(plan: Plan, settings: Settings, folder: Path, quiet: bool, keep: bool) -> Callable[[], Sink]:
    """Write the settled configuration, say what will run, and return what makes the sink."""
    settled = settle(plan, settings)
    plain = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(settled).items() if k != "out"}
    (folder / CONFIG).write_text(yaml.safe_dump(plain, sort_keys=False))
    facts = _facts(plan)
    if not quiet:
        Console().print(_headline(plan, settings), highlight=False, soft_wrap=True)
    return partial(_make_sink, folder, facts, plan.program.updates, quiet, keep)


def settle(plan: Plan, settings: Settings) -> Settings:
    """Write a plan's choices into settings, so that they run the same way again."""
    schedule = plan.schedule
    return dataclasses.replace(
        settings,
        groups=plan.grid.groups,
        stages=plan.grid.stages,
        staleness=[w - 1 for w in schedule.windows] if plan.method.stale else None,
        view=plan.view,
        mixing=plan.mixing,
        micro_batches=schedule.micro_batches,
        cuts=list(plan.partition.names),
    )


def _make_sink(folder: Path, facts: Record, updates: int, quiet: bool, keep_units: bool) -> Sink:
    sinks: list[Sink] = [Folder(folder, facts, keep_units)]
    if importlib.util.find_spec("tensorboard"):
        sinks.append(TensorBoard(folder / "tensorboard"))
    if not quiet:
        sinks.append(ConsoleSink(updates, Console()))
    return Several(sinks)


def _facts(plan: Plan) -> Record:
    return {
        "method": plan.method.name,
        "groups": plan.grid.groups,
        "stages": plan.grid.stages,
        "view": plan.view,
        "mixing": plan.mixing,
        "cuts": list(plan.partition.names),
        "spectral_gap": plan.spectral_gap,
    }


def _headline(plan: Plan, settings: Settings) -> str:
    gap = "" if plan.spectral_gap is None else f", spectral gap {plan.spectral_gap:.4g}"
    cuts = "" if not plan.partition.names else f", cut before {', '.join(plan.partition.names)}"
    bounds = ", ".join(str(plan.schedule.bound(k)) for k in range(plan.grid.stages))
    return (
        f"{plan.method.name}: {plan.grid.groups} groups x {plan.grid.stages} stages on {settings.engine}{cuts}; "
        f"staleness at most {bounds} updates, view {plan.view}; mixing {plan.mixing}{gap}; "
        f"{plan.program.updates} updates, {settings.threads} of {os.cpu_count()} threads a process"
    )


def _loaded(task: Task, settings: Settings, state: dict[str, Tensor]) -> nn.Module:
    model = copy.deepcopy(task.model).to(getattr(torch, settings.dtype))
    model.load_state_dict(state)
    return model.eval()
