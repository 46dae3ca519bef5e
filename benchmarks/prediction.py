"""The plan of a real model against real processes of this machine: predicted over measured time per batch."""

from torch import nn

from benchmarks.measure import Figures, Row, ratio
from benchmarks.workloads import images, optimizer
from stalegrid import Settings, TrainingSettings
from stalegrid.engines.profiling import profile
from stalegrid.models.named import build
from stalegrid.planner.planning import Question, candidates
from stalegrid.plans.task import Task
from stalegrid.studies.rehearsal import rehearse

BATCH, UPDATES = 128, 40


def run(turns: int) -> Row:
    """Profile, predict and measure in turn: one process, two stages, two groups."""
    data = images(4 * BATCH)
    task = Task(build("resnet20", data[0][0], 10), data, nn.CrossEntropyLoss(), optimizer())
    settings = Settings(training=TrainingSettings(batch_size=BATCH))
    figures: Figures = {}
    for _ in range(turns):
        for devices, methods in ((1, ("sgd",)), (2, ("pipedream", "data-parallel"))):
            table = profile(task, settings, settings.engine, copies=devices)
            for method in methods:
                candidate = candidates(Question(table, devices, (method,)), settings)[0]
                name = f"{method} {candidate.grid.groups} x {candidate.grid.stages}"
                figures.setdefault(f"{name} predicted, ms", []).append(candidate.estimate.batch)
                figures.setdefault(f"{name} measured, ms", []).append(rehearse(task, candidate, UPDATES))
    names = list(figures)
    pairs = zip(names[::2], names[1::2], strict=True)
    return Row(figures, [ratio(figures, p, m, at_least=0.9, at_most=1.1) for p, m in pairs])
