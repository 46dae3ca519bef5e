"""The plan of a real model against real processes of this machine: predicted over measured time per batch."""

from functools import partial

import torch
from torch import nn

from bench.measure import Ratio, ratio
from bench.runs import images
from stalegrid import Settings, models
from stalegrid.planning import Question, candidates
from stalegrid.profile import profile
from stalegrid.rehearsal import rehearse
from stalegrid.task import Task

BATCH, UPDATES = 128, 40


def run(turns: int) -> list[Ratio]:
    """Profile, predict and measure in turn: one process, two stages, two groups."""
    data = images(4 * BATCH)
    optimizer = partial(torch.optim.SGD, lr=0.01, momentum=0.9, weight_decay=5e-4)
    task = Task(models.build("resnet20", data[0][0], 10), data, nn.CrossEntropyLoss(), optimizer)
    settings = Settings(batch_size=BATCH)
    figures: dict[str, list[float]] = {}
    for _ in range(turns):
        for devices, methods in ((1, ("sgd",)), (2, ("pipedream", "data-parallel"))):
            table = profile(task, settings, copies=devices)
            for method in methods:
                candidate = candidates(Question(table, devices, (method,)), settings)[0]
                name = f"{method} {candidate.grid.groups} x {candidate.grid.stages}"
                figures.setdefault(f"{name} predicted, ms", []).append(candidate.estimate.batch)
                figures.setdefault(f"{name} measured, ms", []).append(rehearse(task, candidate, UPDATES))
    names = list(figures)
    return [ratio("prediction", figures, p, m, 0.9, 1.1) for p, m in zip(names[::2], names[1::2], strict=True)]
