"""What a candidate takes on real processes of this machine, by the same measure as its estimate.

Does not know: how anything is estimated.
"""

import dataclasses
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import nn

from stalegrid.config import Settings
from stalegrid.data import ArrayDataset
from stalegrid.methods import find_grid
from stalegrid.observe import TRACE, OutputSettings, read_trace
from stalegrid.planner import Candidate
from stalegrid.plans import Task
from stalegrid.programs import Kind, Unit
from stalegrid.runs import execute
from stalegrid.timing import NANOSECONDS, Cost, CostTable, DeviceTable, long_enough, steady


def rehearse(task: Task, candidate: Candidate, updates: int) -> float:
    """Train for a while on real processes, and return milliseconds a batch.

    Args:
        task: what is trained.
        candidate: how.
        updates: how long, at least; the middle half counts.
    """
    settings = candidate.settings
    settings = dataclasses.replace(settings, devices=dataclasses.replace(settings.devices, costs=None))
    return _run(task, settings, long_enough(candidate.schedule, updates))


def emulate(candidate: Candidate, table: CostTable | DeviceTable, updates: int) -> float:
    """Let real processes sleep for what the costs say, and return milliseconds a batch.

    Args:
        candidate: how.
        table: what the model costs.
        updates: how long, at least; the middle half counts.
    """
    grid = candidate.grid
    batch = candidate.schedule.micro_batches
    with tempfile.TemporaryDirectory(prefix="stalegrid-costs-") as folder:
        path = Path(folder) / "costs.yaml"
        stages = table.joined(table.bounds(grid, candidate.cuts))
        # What handling costs, these processes spend by themselves.
        alone = partial(dataclasses.replace, batch_size=batch, handling=0.0)
        (stages.each(alone) if isinstance(stages, DeviceTable) else alone(stages)).write(path)
        asked = candidate.settings
        settings = dataclasses.replace(
            asked,
            grid=dataclasses.replace(asked.grid, cuts=[str(k) for k in range(1, grid.stages)]),
            devices=dataclasses.replace(asked.devices, costs=path, emulate=True),
            training=dataclasses.replace(asked.training, batch_size=batch),
        )
        task = _small(candidate, stages.parts, batch * grid.groups)
        return _run(task, settings, long_enough(candidate.schedule, updates))


def _run(task: Task, settings: Settings, updates: int) -> float:
    with tempfile.TemporaryDirectory(prefix="stalegrid-rehearsal-") as folder:
        out = Path(folder) / "run"
        short = dataclasses.replace(
            settings,
            engine=dataclasses.replace(settings.engine, kind="processes"),
            training=dataclasses.replace(settings.training, updates=updates, until=None),
            output=OutputSettings(folder=out, trace=True, gap=False, log_every=updates, evaluate_every=0, loggers=[]),
        )
        execute(dataclasses.replace(task, scheduler=None, test=None, metrics={}), short, quiet=True)
        ends: dict[Unit, list[int]] = defaultdict(list)
        for span in read_trace(out / TRACE).spans:
            if span.kind is Kind.UPDATE:
                ends[span.unit].append(span.end)
    return max(map(steady, ends.values())) / NANOSECONDS


def _small(candidate: Candidate, costs: Sequence[Cost], samples: int) -> Task:
    """Return a task with a layer a stage, whose arithmetic takes next to no time."""
    optimizer: Any = getattr(torch.optim, find_grid(candidate.settings.method.name).optimizer or "Adam")
    data = ArrayDataset(torch.zeros(samples, 16), torch.zeros(samples, dtype=torch.int64), 16)
    model = nn.Sequential(*(nn.Linear(16, 16).requires_grad_(not cost.frozen) for cost in costs))
    return Task(model, data, nn.CrossEntropyLoss(), partial(optimizer, lr=0.001))
