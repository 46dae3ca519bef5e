"""The simulator computes, bit for bit, what the plain loops of stalegrid.reference compute."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from cases import (
    UPDATES,
    build,
    compare,
    make_settings,
    make_task,
    record_simulator,
    run_reference,
    run_simulator,
)
from torch import Tensor, nn
from torch.utils.data import TensorDataset

SHAPES = list(product((1, 2, 3), (1, 2, 3)))
VIEWS = ("stashed", "current")
MIXINGS = ("combine-while-adapt", "adapt-then-combine")


def hold(groups: int, stages: int, task: dict[str, Any] | None = None, **changes: Any) -> None:
    what, settings = make_task(**(task or {})), make_settings(groups, stages, **changes)
    compare(run_simulator(what, settings), run_reference(what, settings))


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("dtype", "groups", "stages"),
    [("float32", s, k) for s, k in SHAPES] + [("float64", s, k) for s, k in ((1, 1), (1, 3), (2, 2), (3, 3))],
)
def test_grid(dtype: str, groups: int, stages: int, view: str, mixing: str) -> None:
    hold(groups, stages, view=view, mixing=mixing, dtype=dtype)


@pytest.mark.parametrize(("period", "lag"), [(1, 1), (1, 2), (2, 0), (2, 1), (2, 2)])
@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(("groups", "stages", "view"), [(2, 2, "current"), (3, 2, "stashed")])
def test_period_and_lag(groups: int, stages: int, view: str, mixing: str, period: int, lag: int) -> None:
    hold(groups, stages, view=view, mixing=mixing, period=period, lag=lag)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("staleness", [[2, 1, 0], [5, 3, 0], [2, 2, 0], [0, 0, 0], [20, 4, 0]])
def test_staleness(staleness: list[int], view: str) -> None:
    hold(2, 3, staleness=staleness, view=view)


@pytest.mark.parametrize("view", VIEWS)
def test_last_stage_with_slack(view: str) -> None:
    # A last stage that runs ahead reports the losses of several batches at once: compare the losses of the run.
    task, settings = make_task(), make_settings(2, 2, staleness=[4, 2], view=view, log_every=UPDATES)
    run, reference = run_simulator(task, settings), run_reference(task, settings)
    reference.losses = [[sum(group) / UPDATES] for group in reference.losses]
    compare(run, reference)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize("lag", [0, 2])
@pytest.mark.parametrize(
    ("groups", "topology"), [(4, "one-peer-exponential"), (4, "complete"), (4, "star"), (3, "one-peer-exponential")]
)
def test_topology(groups: int, topology: str, lag: int, mixing: str) -> None:
    hold(groups, 2, topology=topology, mixing=mixing, lag=lag)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(("period", "lag"), [(1, 0), (1, 2), (2, 1)])
def test_mixed_momentum(period: int, lag: int, mixing: str) -> None:
    hold(3, 2, mix_momentum=True, topology="star", mixing=mixing, period=period, lag=lag)


def test_mixed_momentum_of_an_optimizer_that_has_none() -> None:
    hold(2, 2, {"optimizer": partial(torch.optim.SGD, lr=0.1), "scheduler": None}, mix_momentum=True)


def test_groups_that_do_not_mix() -> None:
    hold(2, 3, mixing="none", view="current")


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.Adam, lr=0.01, weight_decay=0.01),
        partial(torch.optim.SGD, lr=0.05, momentum=0.9, nesterov=True),
        partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
    ],
    ids=lambda o: o.func.__name__,
)
@pytest.mark.parametrize("view", VIEWS)
def test_optimizer(view: str, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    hold(2, 2, {"optimizer": optimizer, "scheduler": halve}, view=view, lag=1)


@pytest.mark.parametrize(
    ("dtype", "method", "groups", "stages"),
    [("float32", "sgd", 1, k) for k in (1, 3)]
    + [("float32", "data-parallel", s, 1) for s in (1, 2, 3)]
    + [("float32", method, s, k) for method in ("gpipe", "1f1b") for s in (1, 2) for k in (2, 3)]
    + [("float64", "data-parallel", 3, 1), ("float64", "gpipe", 3, 2), ("float64", "1f1b", 3, 3)],
)
def test_synchronous(method: str, groups: int, stages: int, dtype: str) -> None:
    hold(groups, stages, method=method, dtype=dtype)


@pytest.mark.parametrize("micro_batches", [1, 2, 3, 6])
@pytest.mark.parametrize("method", ["gpipe", "1f1b"])
def test_micro_batches(method: str, micro_batches: int) -> None:
    # Two samples a micro-batch, a power of two, so that losses times samples are exact.
    hold(2, 3, method=method, micro_batches=micro_batches, batch_size=2 * micro_batches)


class Words(nn.Module):
    """Embedding; the integers are needed again beyond the cut, and two outputs go to the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 6)
        self.first = nn.Linear(6, 6)
        self.second = nn.Linear(6, 3)
        self.third = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.first(self.embedding(x)))
        h = h * (x > 2).unsqueeze(-1)
        return self.second(h.mean(1)), self.third(h.amax(1))


def two_losses(one: Tensor, other: Tensor, target: Tensor) -> Tensor:
    return nn.functional.cross_entropy(one, target) + nn.functional.cross_entropy(other, target) / 2


class Pooled(nn.Module):
    """Global mean after the cut, so that the gradient that crosses it is an expanded scalar."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(2, 5, 3)
        self.conv2 = nn.Conv2d(5, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv2(torch.tanh(self.conv1(x))).mean((2, 3)))


class Partly(nn.Module):
    """A frozen layer, a layer that gets no gradient, a layer used twice, and an activation in place."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.frozen = nn.Linear(72, 8).requires_grad_(False)
        self.linear = nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=True)
        self.twice = nn.Linear(8, 8)
        self.aside = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8, momentum=None)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.linear(self.frozen(self.flatten(x))))
        h = self.twice(torch.sigmoid(self.twice(h)))
        h = h + self.aside(h).detach()
        return self.head(self.norm(h))


def words() -> TensorDataset:
    draw = torch.Generator().manual_seed(5)
    return TensorDataset(
        torch.randint(0, 9, (50, 4), generator=draw), torch.randint(0, 3, (50,), generator=draw)
    )


AWKWARD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "integers": ({"model": build(Words), "data": words(), "loss": two_losses}, ["first", "second"]),
    "expanded-gradient": ({"model": build(Pooled)}, ["conv2", "mean"]),
    "partly-trained": ({"model": build(Partly)}, ["twice", "norm"]),
}


@pytest.mark.parametrize("method", ["pham-ahn", "1f1b"])
@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_model(name: str, view: str, method: str) -> None:
    task, cuts = AWKWARD[name]
    micro = {"micro_batches": 2} if method == "1f1b" else {}
    hold(2, 3, task, cuts=cuts, method=method, view=view, **micro)


@pytest.mark.parametrize("staleness", [[4, 2, 0], [5, 3, 0], [2, 1, 0]])
def test_reported_staleness_is_the_declared_one(staleness: list[int]) -> None:
    for n, record in enumerate(record_simulator(make_task(), make_settings(2, 3, staleness=staleness)).records):
        declared = {f"({s},{k})": min(n, staleness[k]) for s in range(2) for k in range(3)}
        assert {unit: seen["max"] for unit, seen in record["staleness"].items()} == declared
        assert {unit: seen["mean"] for unit, seen in record["staleness"].items()} == declared
