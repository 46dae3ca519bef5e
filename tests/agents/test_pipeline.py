"""A unit's update: corrections, rates and stamps, against loops written out by hand."""

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import ExponentialLR

from stalegrid.plans.material import make_batches
from stalegrid.plans.task import Task
from stalegrid.stages.corrections.named import Correction, Update
from stalegrid.stages.site import Site
from tests.cases import UPDATES, build, make_settings, make_task, record_simulator, run_simulator

LATE = 2


def small() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3))


def task_of(**changes: Any) -> Task:
    """Return a task whose rate falls at every update by a factor that a scaled rate would spoil."""
    optimizer = partial(torch.optim.SGD, lr=0.5, momentum=0.9, weight_decay=0.01)
    return make_task(
        **({"model": build(small), "optimizer": optimizer, "scheduler": partial(ExponentialLR, gamma=0.75)} | changes)
    )


Rule = Callable[[Sequence[nn.Parameter], Sequence[Tensor], int, int], float]
"""(parameters with their gradients, weights of the forward, update, staleness) -> factor of the rate."""


def by_hand(task: Task, rules: Sequence[Rule], view: str = "stashed") -> tuple[dict[str, Tensor], list[float]]:
    """Train one stage with gradients two updates late; return the weights and the rates."""
    samples = make_batches(task, make_settings().training, 1, 1)
    model = copy.deepcopy(task.model)
    parameters = list(model.parameters())
    optimizer = task.optimizer(parameters)
    assert task.scheduler is not None
    scheduler = task.scheduler(optimizer)
    history, rates = [], []
    for n in range(UPDATES):
        history.append(copy.deepcopy(model))
        tau = min(n, LATE)
        then = history[n - tau]
        reading = then if view == "stashed" else copy.deepcopy(model)
        loss = task.loss(reading(*samples.inputs(0, n)), samples.targets(0, n))
        for p, g in zip(parameters, torch.autograd.grad(loss, list(reading.parameters())), strict=True):
            p.grad = g
        scheduled = optimizer.param_groups[0]["lr"]
        factor = 1.0
        for rule in rules:
            factor *= rule(parameters, [p.detach() for p in then.parameters()], n, tau)
        optimizer.param_groups[0]["lr"] = scheduled * factor
        rates.append(scheduled * factor)
        optimizer.step()
        optimizer.param_groups[0]["lr"] = scheduled
        scheduler.step()
    return model.state_dict(), rates


def inverse(parameters: Any, then: Any, n: int, tau: int) -> float:
    return 1 / max(1, tau)


def pipemare(parameters: Any, then: Any, n: int, tau: int) -> float:
    return float(max(1, tau) ** -(1 - min(n / 4, 1.0)))


def steady(parameters: Any, then: Any, n: int, tau: int) -> float:
    return math.sin(math.pi / (2 * (2 * tau + 1)))


def compensate(parameters: Sequence[nn.Parameter], then: Sequence[Tensor], n: int, tau: int) -> float:
    for p, old in zip(parameters, then, strict=True):
        p.grad = p.grad + 0.5 * p.grad * p.grad * (p.detach() - old)
    return 1.0


def clip(parameters: Sequence[nn.Parameter], then: Any, n: int, tau: int) -> float:
    nn.utils.clip_grad_norm_(parameters, 0.25)
    return 1.0


RULES: dict[str, Rule] = {
    "inverse-staleness": inverse,
    "pipemare-rate=4": pipemare,
    "stability-rate": steady,
    "dc-asgd=0.5": compensate,
    "clip=0.25": clip,
}


@pytest.mark.parametrize("view", ["stashed", "recomputed"])
@pytest.mark.parametrize(
    "texts",
    [
        [],
        ["inverse-staleness"],
        ["pipemare-rate=4"],
        ["stability-rate"],
        ["dc-asgd=0.5"],
        ["clip=0.25"],
        ["dc-asgd=0.5", "clip=0.25"],
        ["clip=0.25", "dc-asgd=0.5"],
        ["inverse-staleness", "clip=0.25", "pipemare-rate=4"],
    ],
    ids=" ".join,
)
def test_a_late_update_is_the_one_written_out_by_hand(texts: list[str], view: str) -> None:
    task = task_of()
    sink = record_simulator(task, make_settings(staleness=[LATE], view=view, corrections=texts))
    state, rates = by_hand(task, [RULES[text] for text in texts], view)
    for name, value in sink.outcome().mean.items():
        assert torch.equal(value, state[name]), name
    assert [record["lr"] for record in sink.records] == rates


def test_every_rule_and_their_order_make_a_difference() -> None:
    task = task_of()
    choices = [[], *[[text] for text in RULES], ["dc-asgd=0.5", "clip=0.25"], ["clip=0.25", "dc-asgd=0.5"]]
    ends = [run_simulator(task, make_settings(staleness=[LATE], corrections=texts)) for texts in choices]
    for i, one in enumerate(ends):
        for other in ends[:i]:
            assert not all(torch.equal(value, other.mean[name]) for name, value in one.mean.items())


def test_clipping_by_the_setting_comes_last() -> None:
    task = task_of()
    made = run_simulator(task, make_settings(staleness=[LATE], corrections=["dc-asgd=0.5"], clip=0.25))
    state, _ = by_hand(task, [compensate, clip])
    assert all(torch.equal(value, state[name]) for name, value in made.mean.items())


class Noting(Correction):
    """Changes nothing and notes what it is told."""

    needs_forwarded = False

    def __init__(self, site: Site) -> None:
        super().__init__(site)
        self.updates: list[Update] = []
        self.versions: list[int] = []
        self.rates: list[float] = []
        self.received_at: list[int] = []
        self.history: list[Tensor] = []
        self.moved: list[float] = []

    def received(self, gradients: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        self.received_at.append(self.site.weights.version)
        return gradients

    def correct(self, update: Update) -> None:
        self.updates.append(update)
        self.versions.append(self.site.weights.version)
        self.history.append(self.site.weights.flat[: self.site.weights.trained].clone())
        if update.forwarded is not None:
            assert torch.equal(
                update.forwarded[: self.site.weights.trained], self.history[update.index - update.staleness]
            )
            squares = [update.moved(p).double().square().sum() for p in self.site.weights.trainable()]
            self.moved.append(float(torch.stack(squares).sum().sqrt()))

    def stepped(self, update: Update) -> None:
        assert update is self.updates[-1]
        self.rates.append(self.site.optimizer.param_groups[0]["lr"])


class Asking(Noting):
    """Asks for the weights of the forward too."""

    needs_forwarded = True


def noted(kind: type[Noting], **settings: Any) -> list[Noting]:
    """Run with a correction that takes notes; return the notes of every unit."""
    made: list[Noting] = []

    def make(site: Site) -> Correction:
        made.append(kind(site))
        return made[-1]

    stages = len(settings["staleness"])
    cuts = {1: None, 2: ["3"], 3: ["3", "5"]}[stages]
    named = settings.pop("corrections", [])
    record_simulator(task_of(), make_settings(1, stages, cuts=cuts, corrections=[*named, make], **settings))
    return made


def test_a_correction_is_told_of_every_update_before_it_is_made() -> None:
    first, last = noted(Noting, staleness=[LATE, 0])
    for unit, bound in ((first, LATE), (last, 0)):
        assert [u.index for u in unit.updates] == unit.versions == list(range(UPDATES))
        assert [u.staleness for u in unit.updates] == [min(n, bound) for n in range(UPDATES)]
        assert all(u.forwarded is None for u in unit.updates)


def test_the_staleness_of_an_update_is_that_of_its_oldest_batch() -> None:
    (unit,) = noted(Noting, staleness=[3], micro_batches=2)
    assert [u.staleness for u in unit.updates] == [min(n, 2) for n in range(UPDATES)]


def test_the_last_stage_receives_nothing() -> None:
    first, middle, last = noted(Noting, staleness=[2, 1, 0])
    assert first.received_at == middle.received_at == list(range(UPDATES))
    assert last.received_at == []


@pytest.mark.parametrize("view", ["stashed", "current", "recomputed", "corrected", "predicted", "predicted-twice"])
def test_whoever_asks_is_given_the_weights_of_the_forward(view: str) -> None:
    """The assertions are made as the updates come, against the weights of every version."""
    for unit in noted(Asking, staleness=[3, 1], view=view):
        assert all(u.forwarded is not None for u in unit.updates)
        assert len(unit.moved) == UPDATES


def test_with_a_double_buffer_the_weights_of_the_forward_are_of_the_version_before() -> None:
    for unit in noted(Asking, staleness=[1, 0], view="double-buffered"):
        assert [u.staleness for u in unit.updates] == [min(n, 1) for n in range(UPDATES)]
        assert len(unit.moved) == UPDATES


def test_after_the_step_a_correction_finds_the_schedules_rate() -> None:
    (unit,) = noted(Noting, staleness=[LATE], corrections=["inverse-staleness"])
    assert unit.rates == [0.5 * 0.75**n for n in range(UPDATES)]


def test_the_reported_gap_is_how_far_the_weights_moved_for_one_batch_at_a_time() -> None:
    """Up to rounding, because the report sums over the whole vector and the norm by hand over parameters."""
    made: list[Noting] = []

    def make(site: Site) -> Correction:
        made.append(Asking(site))
        return made[-1]

    sink = record_simulator(task_of(), make_settings(staleness=[LATE], corrections=[make]))
    gaps = [record["staleness"]["(0,0)"]["gap"] for record in sink.records]
    sampled = range(LATE, UPDATES, LATE + 1)  # from the first update on whose batch is as late as can be
    for n, gap in enumerate(gaps):
        unmeasured = None if n else 0.0  # the first update uses what is not late
        assert gap == (pytest.approx(made[0].moved[n], rel=1e-12) if n in sampled else unmeasured)
    assert gaps[LATE] > 0.01


def test_unless_asked_no_gap_is_measured() -> None:
    sink = record_simulator(task_of(), make_settings(staleness=[LATE], gap=False))
    assert [record["staleness"]["(0,0)"]["gap"] for record in sink.records] == [0.0] + [None] * (UPDATES - 1)


@pytest.mark.parametrize("view", ["stashed", "current", "recomputed", "corrected", "predicted", "predicted-twice"])
def test_measuring_changes_no_number(view: str) -> None:
    one, other = (
        run_simulator(task_of(), make_settings(staleness=[LATE], view=view, gap=gap)) for gap in (False, True)
    )
    assert all(torch.equal(value, other.mean[name]) for name, value in one.mean.items())
    assert one.losses == other.losses
