"""CIFAR-10 on ResNet-20 for one and a half epochs: what this library and its peers train to a test accuracy.

Does not know: how.
"""

from functools import partial
from pathlib import Path

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from benchmarks.measure import Skipped
from benchmarks.workloads import optimizer
from stalegrid.data import CropAndFlip, load_cifar10
from stalegrid.errors import DataError
from stalegrid.models.named import resnet
from stalegrid.plans.task import Task

BATCH, EPOCHS = 128, 1.5
UPDATES = round(50_000 // BATCH * EPOCHS)

EVALUATED = 0.25
"""Epochs between two evaluations."""

_RATE = 0.1


def cifar10(folder: Path, seed: int) -> Task:
    """Return the model with its first weights, the data, and how the rate goes up and down.

    Args:
        folder: holds the official files.
        seed: of the first weights.

    Raises:
        Skipped: the files are not there.
    """
    try:
        train, test = load_cifar10(folder, train=True), load_cifar10(folder, train=False)
    except DataError as problem:
        raise Skipped(f"needs CIFAR-10 (--data-dir): {problem}") from problem
    torch.manual_seed(seed)
    return Task(
        model=resnet(20),
        data=train,
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer(_RATE),
        # One step more than updates: it is stepped after the last one too.
        scheduler=partial(OneCycleLR, max_lr=_RATE, total_steps=UPDATES + 1, cycle_momentum=False),
        test=test,
        augment=CropAndFlip(),
    )
