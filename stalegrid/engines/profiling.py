"""What the parts of a real model cost on this machine, measured.

Does not know: methods, links: the model runs as a chain of parts, one after another, in this process, or in several at
once, which then compete for the machine as the units of a run do.
"""

import dataclasses
import tempfile
import time
from collections import defaultdict
from contextlib import ExitStack
from pathlib import Path
from statistics import median

import torch

from stalegrid.agents import build_agents
from stalegrid.consensus import MixingSettings
from stalegrid.data import Readers
from stalegrid.engines.distributed.handling import measure_handling
from stalegrid.engines.distributed.job import Job
from stalegrid.engines.distributed.launch import launch
from stalegrid.engines.machine import computing, use_device
from stalegrid.engines.recording import recorded
from stalegrid.engines.settings import EngineSettings
from stalegrid.engines.simulator import simulate
from stalegrid.errors import ConfigError
from stalegrid.methods import MethodSettings
from stalegrid.observe import TRACE, Nowhere, OutputSettings, Timeline, read_trace
from stalegrid.partition import finest
from stalegrid.plans import Choices, Plan, Task, cast_model, make_batches, make_plan, precision_of
from stalegrid.programs import OBSERVER, Kind
from stalegrid.seeds import kept
from stalegrid.timing import NANOSECONDS, Cost, CostTable

PARTS = 16
"""Parts that are fine enough for most cuts."""

SMALLER = 4
"""A batch of a fourth of the samples shows what does not grow with them."""

LEAST = 2
"""Samples; batch normalisation refuses one."""

WARM_UP, REPEATS = 3, 9
"""Updates that are not timed, and that are."""


def profile(
    task: Task, asked: Choices, engine: EngineSettings, parts: int = PARTS, copies: int = 1, local_rank: int = 0
) -> CostTable:
    """Measure a model, cut into parts, on batches of its data.

    Args:
        task: what is trained; left as it is.
        asked: batch size, type and seed are used; cuts, if given, in place of the finest.
        engine: device and threads are used.
        parts: how many at most.
        copies: processes that do the same at once; 1 for this process alone.
        local_rank: number of this process on its host, which says the device where there are several.

    Returns:
        The median cost of every part.

    Raises:
        ConfigError: something cannot be run.
    """
    if copies < 1:
        raise ConfigError(f"a model is measured by at least one process (copies: {copies})")
    task = dataclasses.replace(task, scheduler=None, test=None)
    # What is measured is a whole batch; another size of it would leave another rest, which the model may not take.
    batch_size = asked.training.largest
    # Parts are not compiled: each would be by itself, and cost what it does in no stage.
    plain = dataclasses.replace(asked.training, batch_size=batch_size, drop_last=True, compile=False)
    asked = dataclasses.replace(asked, training=plain)
    device = use_device(engine.device, local_rank)
    with computing(engine.threads), kept(device):
        chain = _chain(task, asked, parts, copies)
        whole = _measured(task, chain, engine, device)
        smaller = max(LEAST, batch_size // SMALLER)
        if smaller < batch_size:
            less = dataclasses.replace(chain, training=dataclasses.replace(chain.training, batch_size=smaller))
            some, ratio = _measured(task, less, engine, device), smaller / batch_size
            whole = [dataclasses.replace(a, fixed=_fixed(a, b, ratio)) for a, b in zip(whole, some, strict=True)]
    return CostTable(batch_size, tuple(whole), measure_handling() if device.type == "cpu" else 0.0)


def places(task: Task, asked: Choices, engine: EngineSettings, parts: int = PARTS) -> list[str]:
    """Return the names of what begins the parts but the first, for processes that measure the same ones.

    Args:
        task: as for :func:`profile`.
        asked: likewise.
        engine: threads are used.
        parts: how many at most.

    Raises:
        ConfigError: the model cannot be cut.
    """
    with computing(engine.threads), kept(torch.device("cpu")):
        return _places(task, asked, parts)


def _places(task: Task, asked: Choices, parts: int) -> list[str]:
    if parts < 1:
        raise ConfigError(f"a model is measured in at least one part (parts: {parts})")
    if asked.grid.cuts is not None:
        return asked.grid.cuts
    batches = make_batches(task, asked.training, 1, 1)
    model, apart = task.tried(cast_model(task, asked.training)), asked.grid.tied == "mirror"
    with precision_of(asked.training).on(torch.device("cpu")):
        return list(finest(model, batches.inputs(0, 0), parts, batches.form, asked.grid.blocks, apart=apart))


def _fixed(whole: Cost, some: Cost, ratio: float) -> float:
    """Return what a forward or backward takes besides what grows with its samples, from two sizes of batch."""
    passes = [(some.forward, whole.forward), (some.backward, whole.backward)][: 1 if whole.frozen else 2]
    return max(0.0, sum(part - ratio * all_of_it for part, all_of_it in passes) / (1 - ratio) / len(passes))


def _measured(task: Task, chain: Choices, engine: EngineSettings, device: torch.device) -> list[Cost]:
    plan = make_plan(task, chain)
    timeline = _here(task, plan, device) if plan.grid.groups == 1 else _at_once(task, plan, engine)
    return [_cost(plan, k, timeline, device) for k in range(plan.grid.stages)]


def _here(task: Task, plan: Plan, device: torch.device) -> Timeline:
    timeline = Timeline()
    with ExitStack() as stack:
        agents = build_agents(task, plan, plan.program.agents, device, Nowhere(), Readers(stack))
        simulate(plan.program, recorded(agents, timeline, device))
    return timeline


def _at_once(task: Task, plan: Plan, engine: EngineSettings) -> Timeline:
    with tempfile.TemporaryDirectory(prefix="stalegrid-profile-") as folder:
        launch(Job(task, plan, engine, False, True, Nowhere, Path(folder)), plan.grid.groups)
        return read_trace(Path(folder) / TRACE)


def _chain(task: Task, asked: Choices, parts: int, copies: int) -> Choices:
    """Return what runs the parts one after another, in each of some groups that do not talk."""
    cuts = _places(task, asked, parts)
    updates = WARM_UP + REPEATS
    return Choices(
        method=MethodSettings(name="gpipe", micro_batches=1),
        grid=dataclasses.replace(asked.grid, groups=copies, stages=len(cuts) + 1, cuts=cuts),
        mixing=MixingSettings(kind="none"),
        training=dataclasses.replace(asked.training, updates=updates),
        output=OutputSettings(gap=False, log_every=updates, evaluate_every=0),
    )


def _cost(plan: Plan, stage: int, timeline: Timeline, device: torch.device) -> Cost:
    taken: dict[Kind, list[int]] = defaultdict(list)
    for span in timeline.spans:
        if span.unit.stage == stage and span.unit != OBSERVER and span.index >= WARM_UP:
            taken[span.kind].append(span.end - span.start)
    sizes = [sum(spec.nbytes for spec in layout) for layout in plan.partition.layouts]
    read = plan.stages[stage]
    milliseconds = {kind: median(times) / NANOSECONDS for kind, times in taken.items()}
    return Cost(
        forward=milliseconds[Kind.FORWARD],
        backward=milliseconds[Kind.BACKWARD],
        update=milliseconds[Kind.UPDATE],
        mix=_mixing(torch.zeros(read.mixed, dtype=read.dtype, device=device)),
        input=sizes[stage - 1] if stage else 0,
        output=sizes[stage] if stage < len(sizes) else 0,
        targets=0 if stage < len(sizes) else sum(spec.nbytes for spec in plan.targets.layouts[0]),
        parameters=read.numel * read.dtype.itemsize,
        graph=plan.held[stage],
        frozen=stage < plan.program.frozen,
        tied=plan.messages.tied_bytes(stage),
        name=plan.partition.names[stage - 1] if stage else "input",
    )


def _mixing(vector: torch.Tensor) -> float:
    """Return the milliseconds of averaging a vector with that of one other group."""
    other = vector.clone()
    times: list[float] = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        vector.add_(other - vector, alpha=0.5)
        if vector.is_cuda:
            torch.cuda.synchronize()
        times.append(1000 * (time.perf_counter() - start))
    return median(times)
