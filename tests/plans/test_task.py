"""The optimizer of a part of a task."""

from functools import partial

import pytest
import torch
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.plans.task import Task
from stalegrid.stages import by_name
from tests.cases import make_task


def task_of(optimizer: object) -> Task:
    model = nn.Sequential(nn.Linear(2, 3).requires_grad_(False), nn.Linear(3, 4))
    model[1].weight.mark = "head"  # type: ignore[assignment]
    return make_task(model=model, optimizer=optimizer)


def test_parameters_are_given_to_the_factory_as_they_are() -> None:
    task = task_of(partial(torch.optim.SGD, lr=0.5))
    given = list(task.model.named_parameters())
    assert task.optimizer_of(given).param_groups[0]["params"] == [p for _, p in given]


def test_for_none_the_factory_gets_a_copy_of_one_that_is_trained_and_the_optimizer_has_none() -> None:
    seen: list[nn.Parameter] = []

    def make(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        seen.extend(parameters)
        return torch.optim.Adagrad([{"params": parameters, "lr": 0.25}, {"params": []}], lr=0.5)

    task = task_of(make)
    made = task.optimizer_of([])
    assert [p.shape for p in seen] == [(4, 3)]
    assert seen[0].mark == "head"  # type: ignore[attr-defined]
    assert seen[0].data_ptr() != task.model[1].weight.data_ptr()  # type: ignore[index,union-attr]
    assert [group["params"] for group in made.param_groups] == [[], []]
    assert [group["lr"] for group in made.param_groups] == [0.25, 0.5]
    assert not made.state
    made.step()
    assert torch.optim.lr_scheduler.StepLR(made, 1, 0.5).get_last_lr() == [0.25, 0.5]


def test_several_optimizers_have_their_groups_where_nothing_is_trained() -> None:
    factory = by_name({"*.weight": partial(torch.optim.SGD, lr=0.5), "*.bias": partial(torch.optim.Adam, lr=0.25)})
    made = task_of(factory).optimizer_of([])
    assert [(group["lr"], group["params"]) for group in made.param_groups] == [(0.5, []), (0.25, [])]
    made.step()


def test_of_a_model_that_is_frozen_there_is_none() -> None:
    task = task_of(partial(torch.optim.SGD, lr=0.5))
    task.model.requires_grad_(False)
    with pytest.raises(ConfigError, match="nothing of the model is trained"):
        task.optimizer_of([])
