"""The same run on the simulator, on real processes and as plain loops, compared bit for bit.

Does not know: how any of them works.
"""

import dataclasses
import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from safetensors.torch import load_file
from torch import Tensor

from stalegrid.config import Settings
from stalegrid.engines import computing, use_device
from stalegrid.methods import ServerMethod, find
from stalegrid.observe import METRICS, UNITS
from stalegrid.plans import Plan, ServedPlan, Task, make_plan, make_served_plan
from stalegrid.programs import DELIVERIES, MEETINGS
from stalegrid.runs import execute
from stalegrid.studies.loops import Trained, plain_loop
from stalegrid.studies.whole import unwrapped

LOOPS = "plain loops"

Losses = list[list[float]]
"""By update, by group."""


@dataclass(frozen=True)
class Outcome:
    """The numbers of one run.

    Args:
        parameters: parameters and running statistics, by (group, name).
        losses: of every update and group.
    """

    parameters: dict[tuple[int, str], Tensor]
    losses: Losses


@dataclass(frozen=True)
class Difference:
    """How far one run is from the simulator's.

    Args:
        name: of the run.
        parameter: largest absolute difference of any parameter or running statistic.
        loss: largest absolute difference of any loss.
        equal: whether every number has the same bits.
    """

    name: str
    parameter: float
    loss: float
    equal: bool


def verify(task: Task, settings: Settings) -> list[Difference]:
    """Run a configuration every way there is and compare.

    Args:
        task: what is trained.
        settings: how; the engine is chosen here, the output folder is not used.

    Returns:
        The difference of the processes, and of the plain loops where there are such, from the simulator's run.
    """
    output = dataclasses.replace(settings.output, folder=None, log_every=1, loggers=[], callbacks=[])
    output = dataclasses.replace(output, evaluation="whole")  # every unit's numbers are read, which one process has
    settings = dataclasses.replace(settings, output=output)
    if isinstance(find(settings.method.name), ServerMethod):
        return _verify_served(task, settings)
    with computing(settings.engine.threads):
        plan = make_plan(task, settings)
    settings = plan.settled(settings)
    if plan.mixing.timed:
        return _verify_timed(task, settings, plan)
    simulated = run_engine(task, on(settings, "simulator"), plan)
    processes = run_engine(task, on(settings, "processes"), plan)
    return [compare("processes", simulated, processes), *_loops(task, settings, plan, simulated)]


def on(settings: Settings, kind: Literal["simulator", "processes"]) -> Settings:
    """Return the same settings on an engine."""
    return dataclasses.replace(settings, engine=dataclasses.replace(settings.engine, kind=kind))


def into(settings: Settings, folder: Path) -> Settings:
    """Return the same settings with a folder for results."""
    return dataclasses.replace(settings, output=dataclasses.replace(settings.output, folder=folder))


def _verify_served(task: Task, settings: Settings) -> list[Difference]:
    """Let processes make an order, and repeat it."""
    with tempfile.TemporaryDirectory(prefix="stalegrid-verify-") as name, computing(settings.engine.threads):
        folder = Path(name) / "run"
        live = into(on(settings, "processes"), folder)
        plan = make_served_plan(task, live)
        execute(task, live, quiet=True, keep_units=True)
        processes = read_outcome(folder, plan)
        servers = dataclasses.replace(settings.servers, deliveries=folder / DELIVERIES)
        again = dataclasses.replace(on(settings, "simulator"), servers=servers)
        repeated = make_served_plan(task, again, virtual=True)
        simulated = run_engine(task, again, repeated)
        return [compare("processes", simulated, processes), *_loops(task, again, repeated, simulated)]


def _verify_timed(task: Task, settings: Settings, plan: Plan) -> list[Difference]:
    """Let groups of processes meet, and repeat whom they met."""
    with tempfile.TemporaryDirectory(prefix="stalegrid-verify-") as name:
        folder = Path(name) / "run"
        execute(task, into(on(settings, "processes"), folder), quiet=True, keep_units=True)
        processes = read_outcome(folder, plan)
        mixing = dataclasses.replace(settings.mixing, meetings=folder / MEETINGS)
        again = dataclasses.replace(on(settings, "simulator"), mixing=mixing)
        with computing(settings.engine.threads):
            repeated = make_plan(task, again, virtual=True)
        simulated = run_engine(task, again, repeated)
        return [compare("processes", simulated, processes), *_loops(task, again, repeated, simulated)]


def _loops(task: Task, settings: Settings, plan: Plan | ServedPlan, simulated: Outcome) -> list[Difference]:
    loop = plain_loop(task, plan, use_device(settings.engine.device, 0))
    if loop is None:
        return []
    with computing(settings.engine.threads):
        return [compare(LOOPS, simulated, outcome_of(loop()))]


def run_engine(task: Task, settings: Settings, plan: Plan | ServedPlan) -> Outcome:
    """Run on the engine of the settings and read every unit's numbers back."""
    with tempfile.TemporaryDirectory(prefix="stalegrid-verify-") as name:
        folder = Path(name) / "run"
        execute(task, into(settings, folder), quiet=True, keep_units=True)
        return read_outcome(folder, plan)


def read_outcome(folder: Path, plan: Plan | ServedPlan) -> Outcome:
    """Read every unit's numbers from the folder of a run that kept them and reported every update."""
    vectors = load_file(folder / UNITS)
    lines = [json.loads(line) for line in (folder / METRICS).read_text().splitlines()]
    parameters: dict[tuple[int, str], Tensor] = {}
    for units, layout in zip(plan.owners, plan.stages, strict=True):
        for group, unit in enumerate(units):
            for entry in layout.entries:
                parameters[group, entry.name] = entry.view(vectors[str(unit)]).clone()
    return Outcome(parameters, [line["group_loss"] for line in lines if line["kind"] == "train"])


def outcome_of(trained: Trained) -> Outcome:
    """Read every unit's numbers from what the plain loops leave."""
    modules, losses = trained
    parameters = {
        (s, name): tensor.detach()
        for s, group in enumerate(modules)
        for module in map(unwrapped, group)
        for name, tensor in [*module.named_parameters(), *module.named_buffers()]
        if tensor.is_floating_point()
    }
    return Outcome(parameters, [list(row) for row in zip(*losses, strict=True)])


def compare(name: str, expected: Outcome, found: Outcome) -> Difference:
    """Compare two outcomes bit for bit."""
    # Plain loops have frozen parameters too.
    worst, equal = 0.0, expected.parameters.keys() <= found.parameters.keys()
    for key in expected.parameters.keys() & found.parameters.keys():
        a, b = expected.parameters[key].cpu(), found.parameters[key].cpu()
        equal = equal and torch.equal(a, b)
        worst = max(worst, float((a.double() - b.double()).abs().max()))
    losses = [torch.tensor(o.losses, dtype=torch.float64) for o in (expected, found)]
    equal = equal and torch.equal(*losses)
    return Difference(name, worst, float((losses[0] - losses[1]).abs().max()), equal)
