"""The optimizer of the command line, by name, number and method."""

from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer

from stalegrid.errors import ConfigError
from stalegrid.methods.published import METHODS
from stalegrid.observe.perplexity import Perplexity
from stalegrid.recipes.settings import OptimizerSettings, RunConfig
from stalegrid.recipes.task import make_task
from tests.cases import flat


def optimizer(**options: Any) -> Optimizer:
    return make_task(flat(RunConfig, **options)).optimizer([nn.Parameter(torch.zeros(2))])


def chosen(**options: Any) -> dict[str, Any]:
    return optimizer(**options).param_groups[0]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: m.name)
def test_unless_named_the_optimizer_is_the_methods_or_sgd_with_momentum(method: Any) -> None:
    made = optimizer(method=method.name)
    group = made.param_groups[0]
    if method.name in ("async-nesterov", "asyncmesh"):
        assert type(made) is NAdam
        assert (group["lr"], group["betas"], group["decoupled_weight_decay"]) == (0.002, (0.99, 0.999), True)
    else:
        assert type(made) is SGD
        assert (group["lr"], group["momentum"], group["nesterov"]) == (0.05, 0.9, False)
    assert group["weight_decay"] == 5e-4


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adam", Adam), ("adamw", AdamW), ("nadam", NAdam)])
def test_an_optimizer_by_name(name: Any, kind: type[Optimizer]) -> None:
    made = optimizer(optimizer=name)
    assert type(made) is kind
    group = made.param_groups[0]
    assert group["lr"] == (0.05 if name == "sgd" else 0.002)
    assert group.get("momentum", group.get("betas", (None,))[0] if name != "sgd" else None) == 0.9
    assert group["weight_decay"] == 5e-4
    if name != "sgd":
        assert group["betas"] == (0.9, 0.999)


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "nadam"])
def test_numbers_of_the_users_own(name: Any) -> None:
    group = chosen(optimizer=OptimizerSettings(name=name, lr=0.25, momentum=0.5, weight_decay=0.125))
    assert (group["lr"], group["weight_decay"]) == (0.25, 0.125)
    assert (group["momentum"] if name == "sgd" else group["betas"][0]) == 0.5


def test_a_momentum_of_zero_is_one_of_the_users_own() -> None:
    assert chosen(optimizer=OptimizerSettings(momentum=0.0))["momentum"] == 0.0
    assert chosen(optimizer=OptimizerSettings(name="adam", momentum=0.0))["betas"] == (0.0, 0.999)
    assert chosen(lr=0.0)["lr"] == 0.0


def test_another_optimizer_for_the_method_has_the_methods_momentum() -> None:
    assert chosen(method="async-nesterov", optimizer="sgd")["momentum"] == 0.99
    assert chosen(method="async-nesterov", optimizer=OptimizerSettings(momentum=0.5))["betas"] == (0.5, 0.999)


def test_nesterov_is_for_sgd() -> None:
    assert chosen(nesterov=True)["nesterov"] is True
    with pytest.raises(ConfigError, match=r"nesterov is for sgd \(optimizer: adam\); nadam is Adam with"):
        make_task(flat(RunConfig, optimizer="adam", nesterov=True))
    with pytest.raises(ConfigError, match=r"\(optimizer: nadam\)"):
        make_task(flat(RunConfig, method="async-nesterov", nesterov=True))


def test_weight_decay_of_matrices_alone() -> None:
    layers = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Linear(2, 2)]
    parameters = [p for layer in layers for p in layer.parameters()]
    usual = make_task(flat(RunConfig, optimizer="adamw")).optimizer(parameters)
    assert [len(group["params"]) for group in usual.param_groups] == [6]
    made = make_task(flat(RunConfig, optimizer=OptimizerSettings(name="adamw", decay="matrices"))).optimizer(parameters)
    assert [[p.ndim for p in group["params"]] for group in made.param_groups] == [[4, 2], [1] * 4]
    assert [group["weight_decay"] for group in made.param_groups] == [5e-4, 0.0]
    assert [group["lr"] for group in made.param_groups] == [0.002] * 2
    assert len(optimizer(optimizer=OptimizerSettings(decay="matrices")).param_groups) == 2  # without any matrix
    with pytest.raises(ConfigError, match=r"unknown decay .*none.*matrices"):
        make_task(flat(RunConfig, optimizer=OptimizerSettings(decay="none")))


def rates(config: RunConfig, updates: int) -> list[float]:
    """Return the rate before each update."""
    task = make_task(config)
    optimizer = task.optimizer([nn.Parameter(torch.zeros(1))])
    assert task.scheduler is not None
    scheduler = task.scheduler(optimizer)
    found = []
    for _ in range(updates):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


def test_milestones_are_epochs_of_samples_seen_by_whoever() -> None:
    # 1437 digits: 89 batches of 16 for one group; two learners make 44 each, an update takes two of these.
    grid = flat(RunConfig, method="sgd", schedule="step", milestones=[1.0], epochs=2, batch_size=16, lr=1.0)
    assert rates(grid, 178).index(0.1) == 89
    served = flat(
        RunConfig, method="hardsync", learners=2, schedule="step", milestones=[1.0], epochs=2, batch_size=16, lr=1.0
    )
    assert rates(served, 88).index(0.1) == 44


@pytest.mark.parametrize(("drop_last", "updates"), [(None, 10), (True, 10), (False, 11)])
@pytest.mark.parametrize("method", [{"method": "data-parallel", "groups": 2}, {"method": "hardsync", "learners": 2}])
def test_a_schedule_counts_the_incomplete_last_batch_if_it_is_trained(
    method: dict[str, Any], drop_last: bool | None, updates: int
) -> None:
    """Of the 1437 images, in updates of 2 x 71."""
    task = make_task(flat(RunConfig, schedule="cosine", epochs=1, batch_size=71, drop_last=drop_last, **method))
    assert task.scheduler is not None
    assert task.scheduler(SGD([nn.Parameter(torch.zeros(2))], lr=1.0)).T_max == updates  # type: ignore[attr-defined]


def test_a_step_schedule_takes_a_tenth_at_a_half_and_at_three_quarters_where_no_milestones_are_named() -> None:
    made = rates(flat(RunConfig, method="sgd", schedule="step", updates=8, lr=1.0), 8)
    assert made == pytest.approx([1.0] * 4 + [0.1] * 2 + [0.01] * 2)


def test_milestones_of_another_schedule_are_refused() -> None:
    with pytest.raises(ConfigError, match="milestones are those of schedule step \\(schedule: cosine\\)"):
        make_task(flat(RunConfig, schedule="cosine", milestones=[1.0]))


def test_the_loss_is_by_name_that_of_the_model_too() -> None:
    outputs = {"loss": torch.tensor(2.0), "logits": torch.zeros(3, 2)}
    assert make_task(RunConfig.of({"loss": "own"})).loss(outputs, {"labels": torch.zeros(3)}) is outputs["loss"]
    assert isinstance(make_task(RunConfig()).loss, nn.CrossEntropyLoss)
    with pytest.raises(ConfigError, match="unknown loss \\(loss: 'hinge'\\); there is cross-entropy and own, and any"):
        make_task(RunConfig.of({"loss": "hinge"}))


def test_metrics_are_called_by_the_last_parts_of_their_names() -> None:
    names = ["perplexity", "torch.nn:L1Loss", "torch.nn.functional:cosine_similarity"]
    found = make_task(RunConfig.of({"metrics": names})).metrics
    assert list(found) == ["perplexity", "l1loss", "cosine_similarity"]
    assert isinstance(found["perplexity"], Perplexity)
    assert isinstance(found["l1loss"], nn.L1Loss)
    assert found["cosine_similarity"] is torch.nn.functional.cosine_similarity


@pytest.mark.parametrize(
    ("names", "text"),
    [
        (["entropy"], "unknown metric"),
        (["torch:pi"], "a metric is a function or a class"),
        (["torch.nn.functional:l1_loss", "torch.nn.functional:l1_loss"], "two metrics have the same name"),
    ],
)
def test_names_of_metrics_that_stand_for_none(names: list[str], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        make_task(RunConfig.of({"metrics": names}))
