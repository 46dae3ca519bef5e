"""What a run is made of is told alike when it is made again, and otherwise when it is another."""

from typing import Any

import torch
from torch import nn
from torch.utils.data import TensorDataset

from stalegrid.plans import Task, origin_of


def task(
    width: int = 8, rate: float = 0.1, drop: float = 0.2, shift: float = 0.0, frozen: float = 1.0, weight: float = 1.0
) -> Task:
    model = nn.Sequential(nn.Linear(4, width), nn.Dropout(drop), nn.BatchNorm1d(width), nn.Linear(width, 2))
    model[0].bias.requires_grad_(False).fill_(frozen)
    x = torch.arange(64.0).reshape(16, 4) + shift
    loss = nn.CrossEntropyLoss(weight=torch.tensor([weight, 1.0]))
    return Task(
        model,
        TensorDataset(x, torch.arange(16) % 2),
        loss,
        lambda p: torch.optim.SGD(p, lr=rate),
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
    )


def unlike(**other: float) -> list[str]:
    then, now = origin_of(task()), origin_of(task(**other))  # type: ignore[arg-type]
    return [what for what in then if then[what] != now[what]]


def test_the_same_made_again_is_the_same_whatever_trained_parameters_are() -> None:
    made: Any = task()
    with torch.no_grad():
        made.model[3].weight.fill_(7)
    assert origin_of(made) == origin_of(task())


def test_what_is_other_is_told_by_its_kind() -> None:
    assert unlike(drop=0.3) == ["layers"]
    assert "layers" in unlike(width=9)
    assert unlike(frozen=2.0) == ["frozen values"]
    assert unlike(shift=1.0) == ["data"]
    assert unlike(rate=0.2) == ["optimizers"]
    assert unlike(weight=2.0) == ["losses"]
