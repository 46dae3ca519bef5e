"""The simulator computes, bit for bit, what the plain loops of stalegrid.studies.reference compute."""

from collections.abc import Callable
from functools import partial
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from benchmarks.workloads import Cast, ChannelsLast
from stalegrid.methods import find_grid
from stalegrid.studies.loops import OWN
from tests.cases import (
    OPTIMIZERS,
    OTHER_OPTIMIZERS,
    Net,
    build,
    changed,
    hold_to_the_loop,
    make_plan,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)
from tests.pairs import pairs

SHAPES = list(product((1, 2, 3), (1, 2, 3)))
VIEWS = ("stashed", "current")
MIXINGS = ("combine-while-adapt", "adapt-then-combine")


def hold(groups: int, stages: int, task: dict[str, Any] | None = None, **changes: Any) -> None:
    hold_to_the_loop(make_task(**(task or {})), make_settings(groups, stages, **changes))


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("dtype", "groups", "stages", "mixing"),
    [("float32", 1, k, MIXINGS[k % 2]) for k in (1, 2, 3)]  # one group has nobody to mix with
    + [("float32", s, k, mixing) for (s, k), mixing in product(SHAPES, MIXINGS) if s > 1]
    + [("float64", s, k, mixing) for (s, k), mixing in product(((2, 2), (3, 3)), MIXINGS)]
    + [("float64", 1, 1, MIXINGS[0])],
)
def test_grid(dtype: str, groups: int, stages: int, view: str, mixing: str) -> None:
    hold(groups, stages, view=view, mixing=mixing, dtype=dtype)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(
    ("period", "lag", "groups", "view"),
    [(1, 1, 3, "stashed"), (1, 2, 2, "current"), (2, 0, 3, "current"), (2, 1, 2, "stashed"), (2, 2, 3, "current")],
)
def test_period_and_lag(groups: int, view: str, mixing: str, period: int, lag: int) -> None:
    hold(groups, 2, view=view, mixing=mixing, period=period, lag=lag)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("staleness", [[2, 1, 0], [5, 3, 0], [2, 2, 0], [0, 0, 0], [20, 4, 0], [2], [4, 2]])
def test_staleness(staleness: list[int], view: str) -> None:
    hold(2, len(staleness), staleness=staleness, view=view)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(
    ("groups", "topology", "lag"),
    [
        (4, "one-peer-exponential", 0),
        (4, "one-peer-exponential", 2),
        (3, "one-peer-exponential", 1),
        (4, "complete", 0),
        (4, "star", 1),
    ],
)
def test_topology(groups: int, topology: str, lag: int, mixing: str) -> None:
    hold(groups, 2, topology=topology, mixing=mixing, lag=lag)


@pytest.mark.parametrize("mixing", MIXINGS)
@pytest.mark.parametrize(("period", "lag"), [(1, 0), (1, 2), (2, 1)])
def test_mixed_momentum(period: int, lag: int, mixing: str) -> None:
    hold(3, 2, momentum=True, topology="star", mixing=mixing, period=period, lag=lag)


RULES = ("push-sum", "exact-diffusion", "gradient-tracking")
UNLIKE = "0>1,1>2,2>0,0>2"
"""Directed, with more edges out of one group, and into another one, than of others."""


@pytest.mark.parametrize(
    ("dtype", "groups", "stages", "view", "rule"),
    [("float32", 2, 1, "stashed", "push-sum"), ("float32", 2, 2, "stashed", "exact-diffusion")]
    + [("float32", 3, 1, "current", "gradient-tracking")]
    + [
        pytest.param(dtype, s, k, VIEWS[(s + k) % 2], rule, marks=pytest.mark.thorough)
        for dtype, (s, k), rule in pairs(("float32", "float64"), SHAPES, RULES)
    ],
)
def test_rules_that_do_more_than_average(dtype: str, groups: int, stages: int, view: str, rule: str) -> None:
    hold(groups, stages, view=view, mixing=rule, dtype=dtype)


@pytest.mark.parametrize(
    ("rule", "changes"),
    [("push-sum", {"topology": UNLIKE, "period": 2})]
    + [
        pytest.param(rule, changes, marks=pytest.mark.thorough)
        for rule, changes in (
            ("push-sum", {"topology": UNLIKE}),
            ("push-sum", {"topology": UNLIKE, "staleness": [5, 0], "view": "current"}),
            ("push-sum", {"topology": "star"}),
            ("push-sum", {"topology": "directed-exponential"}),
            ("push-sum", {"topology": "one-peer-exponential"}),
            ("exact-diffusion", {"topology": "0-1,1-2"}),
            ("exact-diffusion", {"batch_size": [4, 2, 6]}),
            ("gradient-tracking", {"period": 2}),
            ("gradient-tracking", {"topology": "0-1,1-2", "period": 3}),
            ("gradient-tracking", {"topology": "one-peer-exponential"}),
            ("gradient-tracking", {"batch_size": [4, 2, 6]}),
        )
    ],
    ids=str,
)
def test_rules_on_other_graphs_and_in_rarer_rounds(rule: str, changes: dict[str, Any]) -> None:
    hold(3, 2, mixing=rule, **changes)


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", OTHER_OPTIMIZERS, ids=lambda o: o.func.__name__)
@pytest.mark.parametrize("rule", RULES)
def test_rules_with_other_optimizers(rule: str, optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    topology = {"topology": UNLIKE} if rule == "push-sum" else {}
    hold(3, 2, {"optimizer": optimizer, "scheduler": None}, mixing=rule, **topology)


def test_mixed_momentum_of_adam() -> None:
    adam = partial(torch.optim.Adam, lr=0.01)
    hold(3, 2, {"optimizer": adam, "scheduler": None}, momentum=True, lag=1)


OUTER = [
    ("outer", {"period": 2}),
    ("outer,rate=0.5,momentum=0.5,keep=0.5", {"period": 3, "lag": 2, "fragments": True}),
    ("noloco", {"period": 2}),
    ("noloco,rate=0.5,momentum=0.3", {"period": 3, "fragments": True}),
]


@pytest.mark.parametrize(
    ("groups", "stages", "kind", "changes"),
    [(s, k, *way) for (s, k), way in zip([(1, 2), (3, 3), (2, 1), (3, 2)], OUTER, strict=True)],
)
def test_outer_optimizer(groups: int, stages: int, kind: str, changes: dict[str, Any]) -> None:
    hold(groups, stages, mixing=kind, **changes)


@pytest.mark.parametrize("changes", [{"batch_size": [6, 2, 4]}, {"topology": "0-1,1-2"}, {"lag": 1}], ids=str)
def test_outer_optimizers_that_may_come_to_their_mean_in_parts(changes: dict[str, Any]) -> None:
    hold(3, 2, mixing="outer,keep=0.5", period=2, fragments=True, **changes)


@pytest.mark.thorough
@pytest.mark.parametrize(("shape", "way", "dtype"), pairs(SHAPES, OUTER, ("float32", "float64")))
def test_outer_optimizers_on_every_grid(shape: tuple[int, int], way: tuple[str, dict[str, Any]], dtype: str) -> None:
    (groups, stages), (kind, changes) = shape, way
    hold(groups, stages, mixing=kind, dtype=dtype, view=VIEWS[(groups + stages) % 2], **changes)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("groups", "topology", "kind"),
    pairs(
        (3, 4),
        ("ring", "star", "one-peer-exponential", "random-pairs", "complete"),
        ("outer", "noloco", "adapt-then-combine"),
    ),
)
def test_outer_optimizers_of_those_who_are_joined(groups: int, topology: str, kind: str) -> None:
    hold(groups, 2, mixing=kind, topology=topology, period=2, fragments=True)


@pytest.mark.thorough
@pytest.mark.parametrize("kind", ["outer", "outer,momentum=0.0,keep=1.0"])
def test_outer_optimizers_of_groups_of_unlike_speed(kind: str) -> None:
    hold(3, 2, mixing=kind, period=3, lag=1, batch_size=[6, 2, 4])


@pytest.mark.thorough
@pytest.mark.parametrize(("stages", "late", "mixing"), pairs((2, 3), ((3, 0), (3, 1), (2, 3)), MIXINGS))
def test_stages_that_take_turns(stages: int, late: tuple[int, int], mixing: str) -> None:
    period, lag = late
    hold(3, stages, mixing=mixing, period=period, lag=lag, fragments=True)


LAZY = [[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]]
"""Groups that keep so much of themselves that snapshots of two rounds ago may be mixed."""

LATE: dict[str, dict[str, Any]] = {
    "delta": {"lag_rule": "delta", "lag": 2, "topology": LAZY},
    "delta of momentum": {"lag_rule": "delta", "lag": 1, "period": 2, "momentum": True},
    "delta, neighbours by turns": {"lag_rule": "delta", "lag": 1, "period": 2, "topology": "one-peer-exponential"},
    "parts": {"sparse": 0.3},
    "late parts": {"sparse": 0.5, "lag": 3, "period": 2},
    "parts, neighbours by turns": {"sparse": 0.5, "lag": 1, "topology": "one-peer-exponential"},
    "delta of parts": {"lag_rule": "delta", "sparse": 0.25, "lag": 2},
    "ema": {"lag_rule": "ema", "lag": 1, "period": 2},
    "ema of parts": {"lag_rule": "ema", "sparse": 0.3, "lag": 2},
}


@pytest.mark.parametrize(("name", "mixing"), [(name, MIXINGS[i % 2]) for i, name in enumerate(LATE)])
def test_lag_rules_and_parts(name: str, mixing: str) -> None:
    """With enough updates for several cycles."""
    hold(3, 2, {"scheduler": None}, mixing=mixing, updates=14, **LATE[name])


@pytest.mark.thorough
@pytest.mark.parametrize(("name", "mixing"), [(name, MIXINGS[1 - i % 2]) for i, name in enumerate(LATE)])
def test_lag_rules_and_parts_in_the_other_order(name: str, mixing: str) -> None:
    test_lag_rules_and_parts(name, mixing)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    pairs(("delta", "ema of parts"), [(s, k) for s, k in SHAPES if s > 1], ("float32", "float64")),
)
def test_lag_rules_and_parts_on_every_grid(name: str, shape: tuple[int, int], dtype: str) -> None:
    groups, stages = shape
    topology = [[0.8, 0.2], [0.2, 0.8]] if groups == 2 else LAZY
    changes = LATE[name] | {"topology": topology}
    hold(groups, stages, {"scheduler": None}, updates=14, dtype=dtype, **changes)


def test_asyncmesh_is_stale_in_both_directions() -> None:
    hold(3, 3, {"optimizer": OPTIMIZERS["asyncmesh"], "scheduler": None}, method="asyncmesh", updates=40)


def test_groups_that_do_not_mix() -> None:
    hold(2, 3, mixing="none", view="current")


@pytest.mark.parametrize("optimizer", OTHER_OPTIMIZERS, ids=lambda o: o.func.__name__)
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


FEEDBACK = ["error-feedback=0.5"]
CHAIN = ["error-feedback-by-staleness=0.25", "stability-rate", "error-feedback"]


GRIDS: list[tuple[int, int, dict[str, Any]]] = [
    (1, 1, {"staleness": [2]}),
    (1, 2, {"view": "current"}),
    (1, 3, {"dtype": "float64"}),
    (2, 1, {"method": "data-parallel"}),
    (2, 2, {"mixing": "adapt-then-combine", "momentum": True}),
    (2, 3, {"view": "current", "period": 2}),
    (3, 1, {"staleness": [1], "momentum": True}),
    (3, 2, {"mixing": "none", "dtype": "float64"}),
    (3, 3, {"lag": 2}),
]
STEPS = (FEEDBACK, ["stability-rate"], CHAIN)


@pytest.mark.parametrize(
    ("grid", "corrections"),
    [
        pytest.param(grid, corrections, marks=[] if (i + j) % 3 == 0 else pytest.mark.thorough)
        for (i, grid), (j, corrections) in product(enumerate(GRIDS), enumerate(STEPS))
    ],
    ids=str,
)
def test_corrections_of_a_step(grid: tuple[int, int, dict[str, Any]], corrections: list[str]) -> None:
    groups, stages, changes = grid
    hold(groups, stages, corrections=corrections, **changes)


@pytest.mark.thorough
@pytest.mark.parametrize("method", [name for name in OWN if name not in OPTIMIZERS])
def test_corrections_of_a_step_with_every_view(method: str) -> None:
    corrections = [*map(str, find_grid(method).corrections), "error-feedback=0.5"]
    micro = {"micro_batches": 2} if find_grid(method).micro_batches > 1 else {}
    hold(1, 3, method=method, corrections=corrections, **micro)


@pytest.mark.parametrize("name", ["partly-trained", pytest.param("tied", marks=pytest.mark.thorough)])
def test_corrections_of_a_step_of_an_awkward_model(name: str) -> None:
    task, cuts = AWKWARD[name]
    hold(2, 3, task, cuts=cuts, corrections=CHAIN)


def test_corrections_of_a_step_leave_a_layer_without_gradient_alone() -> None:
    hold(2, 2, {"model": build(NoGradient)}, cuts=["aside"], corrections=CHAIN)


@pytest.mark.thorough
@pytest.mark.parametrize("optimizer", OTHER_OPTIMIZERS, ids=lambda o: o.func.__name__)
def test_corrections_of_a_step_of_another_optimizer(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=3, gamma=0.5)
    hold(2, 2, {"optimizer": optimizer, "scheduler": halve}, corrections=CHAIN)


def test_error_feedback_before_or_after_the_other_corrections_is_the_same_but_not_among_its_own_kind() -> None:
    def ends(*texts: str) -> Tensor:
        made = run_simulator(make_task(), make_settings(1, 1, staleness=[1], corrections=list(texts)))
        return torch.cat([value.flatten() for value in made.mean.values()])

    one, other = "error-feedback=0.5", "stability-rate"
    assert torch.equal(ends(one, other), ends(other, one))
    one, other = "error-feedback=0.5", "error-feedback-by-staleness=0.25"
    assert not torch.equal(ends(one, other), ends(other, one))


@pytest.mark.parametrize(
    ("method", "groups"),
    [("gpipe", 1), ("1f1b", 2), ("data-parallel", 3), ("paci", 1), ("pipedream-2bw", 1), ("adl", 1)],
)
def test_sums_over_micro_batches(method: str, groups: int) -> None:
    stages = 1 if method == "data-parallel" else 3
    hold(groups, stages, method=method, micro_batches=2, reduction="sum")


def test_a_sum_is_another_update_than_a_mean_unless_it_is_of_one() -> None:
    for micro_batches, differ in ((1, False), (2, True)):
        settings = make_settings(1, 1, method="adl", micro_batches=micro_batches)
        ends = [run_simulator(make_task(), changed(settings, reduction=reduction)) for reduction in ("sum", "mean")]
        assert any(not torch.equal(value, ends[1].mean[name]) for name, value in ends[0].mean.items()) == differ


@pytest.mark.parametrize(
    ("method", "stages", "dtype"),
    [("fdg-forward-first", 3, "float32"), ("fdg-forward-first", 2, "float64"), ("adl", 2, "float64")],
)
def test_orders_within_a_tick(method: str, stages: int, dtype: str) -> None:
    hold(1, stages, method=method, dtype=dtype)


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
    """A frozen layer, a layer used twice, an activation in place and running statistics by count."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.frozen = nn.Linear(72, 8).requires_grad_(False)
        self.linear = nn.Linear(8, 8)
        self.relu = nn.ReLU(inplace=True)
        self.twice = nn.Linear(8, 8)
        self.norm = nn.BatchNorm1d(8, momentum=None)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.relu(self.linear(self.frozen(self.flatten(x))))
        return self.head(self.norm(self.twice(torch.sigmoid(self.twice(h)))))


class Tied(nn.Module):
    """One weight under two names in one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Linear(72, 8)
        self.second = nn.Linear(8, 8)
        self.third = nn.Linear(8, 8)
        self.third.weight = self.second.weight
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.second(torch.tanh(self.first(self.flatten(x)))))
        return self.head(torch.tanh(self.third(h)))


class Constants(nn.Module):
    """Buffers that do not change, floating and not, part of the saved state or not."""

    def __init__(self, persistent: bool) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.first = nn.Linear(72, 8)
        self.register_buffer("position", torch.linspace(0, 1, 8), persistent=persistent)
        self.second = nn.Linear(8, 8)
        self.register_buffer("mask", torch.arange(8) > 3, persistent=persistent)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.first(self.flatten(x)) + self.position)
        return self.head(torch.tanh(self.second(h)) * self.mask)


class NoGradient(nn.Module):
    """A layer that is used but gets no gradient, which torch's optimizers skip, weight decay included."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.linear = nn.Linear(72, 8)
        self.aside = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.linear(self.flatten(x)))
        return self.head(h + self.aside(h).detach())


def words() -> TensorDataset:
    draw = torch.Generator().manual_seed(5)
    return TensorDataset(torch.randint(0, 9, (50, 4), generator=draw), torch.randint(0, 3, (50,), generator=draw))


class Positions(nn.Module):
    """A constant made in the forward, which the trace turns into a buffer of the stage."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(72, 6)
        self.second = nn.Linear(6, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x.flatten(1)) + torch.linspace(0, 1, 6)
        return self.head(torch.tanh(self.second(h)) * torch.arange(6))


class Narrowed(nn.Module):
    """Stages that hand over bfloat16, so that messages are half as long."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten = nn.Flatten()
        self.first, self.down1, self.up1 = nn.Linear(72, 8), Cast(torch.bfloat16), Cast(torch.float32)
        self.second, self.down2, self.up2 = nn.Linear(8, 8), Cast(torch.bfloat16), Cast(torch.float32)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.down1(torch.tanh(self.first(self.flatten(x))))
        return self.head(self.up2(self.down2(torch.tanh(self.second(self.up1(h))))))


def channels_last() -> nn.Module:
    return nn.Sequential(ChannelsLast(), Net()).to(memory_format=torch.channels_last)


AWKWARD: dict[str, tuple[dict[str, Any], list[str]]] = {
    "integers": ({"model": build(Words), "data": words(), "loss": two_losses}, ["first", "second"]),
    "expanded-gradient": ({"model": build(Pooled)}, ["conv2", "mean"]),
    "partly-trained": ({"model": build(Partly)}, ["twice", "norm"]),
    "positions": ({"model": build(Positions)}, ["second", "head"]),
    "tied": ({"model": build(Tied)}, ["second", "head"]),
    "constants": ({"model": build(partial(Constants, True))}, ["second", "head"]),
    "narrowed": ({"model": build(Narrowed)}, ["up1", "up2"]),
    "channels-last": ({"model": build(channels_last)}, ["1.conv2", "1.dropout2"]),
    "unsaved": ({"model": build(partial(Constants, False))}, ["second", "head"]),
}


@pytest.mark.parametrize(
    "changes", [{"view": "stashed"}, {"view": "current"}, {"method": "1f1b", "micro_batches": 2}], ids=str
)
@pytest.mark.parametrize("name", list(AWKWARD))
def test_awkward_model(name: str, changes: dict[str, Any]) -> None:
    task, cuts = AWKWARD[name]
    hold(2, 3, task, cuts=cuts, **changes)


@pytest.mark.parametrize(
    ("groups", "stages", "changes"), [(1, 1, {}), (2, 3, {"view": "current"}), (1, 2, {"precision": "bf16"})]
)
def test_channels_last_trains_the_model_that_the_user_would_have_laid_out_so(
    groups: int, stages: int, changes: dict[str, Any]
) -> None:
    model = build(Net).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    settings = make_settings(groups, stages, **changes)
    asked = changed(settings, channels_last=True)
    assert record_simulator(make_task(), asked).records == record_simulator(make_task(model=model), settings).records
    hold_to_the_loop(make_task(), asked)
    layouts = make_plan(make_task(), asked).partition.layouts
    images = [spec for layout in layouts for spec in layout if len(spec.shape) == 4]
    assert bool(images) == (stages > 1)
    assert all(spec.stride[1] == 1 for spec in images)


def test_messages_are_of_the_type_and_memory_order_that_stages_hand_over() -> None:
    found = {}
    for name in ("narrowed", "channels-last"):
        task, cuts = AWKWARD[name]
        found[name] = make_plan(make_task(**task), make_settings(1, 3, cuts=cuts)).partition.layouts
    assert [spec.dtype for layout in found["narrowed"] for spec in layout] == [torch.bfloat16] * 2
    images = [spec for layout in found["channels-last"] for spec in layout]
    assert images
    assert all(spec.stride[1] == 1 for spec in images)


@pytest.mark.parametrize(
    ("method", "groups"), [("pham-ahn", 2), ("gpipe", 1), ("gpipe", 2), ("gradient-tracking", 2), ("sgp", 2)]
)
def test_layer_without_gradient(method: str, groups: int) -> None:
    hold(groups, 2, {"model": build(NoGradient)}, cuts=["aside"], method=method)


@pytest.mark.thorough
@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", ["partly-trained", "tied", "constants", "channels-last"])
def test_awkward_model_under_other_rules(name: str, rule: str) -> None:
    task, cuts = AWKWARD[name]
    hold(3, 3, task, cuts=cuts, mixing=rule, **({"topology": UNLIKE} if rule == "push-sum" else {}))


@pytest.mark.parametrize("staleness", [[4, 2, 0], [5, 3, 0], [2, 1, 0]])
def test_reported_staleness_is_the_declared_one(staleness: list[int]) -> None:
    for n, record in enumerate(record_simulator(make_task(), make_settings(2, 3, staleness=staleness)).records):
        declared = {f"({s},{k})": min(n, staleness[k]) for s in range(2) for k in range(3)}
        assert {unit: seen["max"] for unit, seen in record["staleness"].items()} == declared
        assert {unit: seen["mean"] for unit, seen in record["staleness"].items()} == declared
