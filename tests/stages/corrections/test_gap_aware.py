import copy
from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer
from torch.optim.lr_scheduler import ExponentialLR, LRScheduler, OneCycleLR

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.gap_aware import GapAware
from stalegrid.stages.corrections.named import Update
from stalegrid.stages.site import Site
from tests.sites import give_gradients, linear, make_site, parameters

LATE = 2
Make = Callable[[list[nn.Parameter]], Optimizer]
Rate = Callable[[Optimizer], LRScheduler] | None


def train(site: Site, schedule: Rate, updates: int) -> None:
    """Make updates whose gradients are late, corrected."""
    correction = GapAware(site)
    scheduler = None if schedule is None else schedule(site.optimizer)
    history = []
    for n in range(updates):
        history.append(parameters(site))
        tau = min(n, LATE)
        update = Update(n, tau, history[n - tau])
        give_gradients(site, n)
        correction.correct(update)
        site.optimizer.step()
        correction.stepped(update)
        site.weights.version += 1
        if scheduler is not None:
            scheduler.step()


def by_hand(optimizer: Make, schedule: Rate, updates: int, max_lr: float) -> tuple[list[torch.Tensor], bool]:
    """Make the same updates from the formulas; return the weights, and whether any gradient became smaller."""
    site = make_site(optimizer=optimizer)
    weights = [nn.Parameter(p.detach().clone()) for p in site.weights.trainable()]
    step = optimizer(weights)
    group = step.param_groups[0]
    scheduler = None if schedule is None else schedule(step)
    squares: list[torch.Tensor] = []
    history: list[list[torch.Tensor]] = []
    smaller = False
    for n in range(updates):
        history.append([w.detach().clone() for w in weights])
        then = history[n - min(n, LATE)]
        for i, (w, g) in enumerate(zip(weights, give_gradients(site, n), strict=True)):
            w.grad = g
            if n:
                mean = squares[i] / (1 - 0.999**n)
                scale = (mean.sqrt() + 1e-8) * max_lr
                gap = 1 + (w.detach() - then[i]).abs() / scale
                decay = group["weight_decay"] * w.detach()
                w.grad = (g + decay) / gap - decay
                smaller = smaller or bool((w.grad + decay).abs().sum() < (g + decay).abs().sum())
        step.step()
        for i, w in enumerate(weights):
            moved = step.state[w]["momentum_buffer"] if group["momentum"] else w.grad
            square = moved.square() * (1 - 0.999)
            if n:
                squares[i] = squares[i] * 0.999 + square
            else:
                squares.append(square)
        if scheduler is not None:
            scheduler.step()
    return [w.detach() for w in weights], smaller


ONE_CYCLE = partial(OneCycleLR, max_lr=0.5, total_steps=9, cycle_momentum=False)


@pytest.mark.parametrize(
    ("optimizer", "schedule", "max_lr"),
    [
        (partial(SGD, lr=0.125, momentum=0.9), None, 0.125),
        (partial(SGD, lr=0.125, momentum=0.9, weight_decay=0.5), None, 0.125),
        (partial(SGD, lr=0.125, momentum=0.5, nesterov=True, weight_decay=0.5), None, 0.125),
        (partial(SGD, lr=0.125, weight_decay=0.5), None, 0.125),
        (partial(SGD, lr=0.125, momentum=0.9), partial(ExponentialLR, gamma=0.5), 0.125),
        (partial(SGD, lr=0.125, momentum=0.9), ONE_CYCLE, 0.5),
    ],
    ids=["momentum", "decay", "nesterov", "plain", "falling rate", "one-cycle"],
)
def test_late_gradients_become_smaller_where_the_weights_moved_far(
    optimizer: Make, schedule: Rate, max_lr: float
) -> None:
    site = make_site(optimizer=optimizer)
    train(site, schedule, 8)
    expected, smaller = by_hand(optimizer, schedule, 8, max_lr)
    assert smaller
    assert all(torch.equal(p, w) for p, w in zip(site.weights.trainable(), expected, strict=True))


def test_another_largest_rate_would_make_another_update() -> None:
    optimizer = partial(SGD, lr=0.125, momentum=0.9)
    site = make_site(optimizer=optimizer)
    train(site, ONE_CYCLE, 4)
    expected, _ = by_hand(optimizer, ONE_CYCLE, 4, 0.125)
    assert not any(torch.equal(p, w) for p, w in zip(site.weights.trainable(), expected, strict=True))


def test_a_gradient_that_is_not_late_stays() -> None:
    """Up to rounding with weight decay, which is added and taken away again."""
    for decay, exact in ((0.0, True), (0.5, False)):
        site = make_site(optimizer=partial(SGD, lr=0.125, momentum=0.9, weight_decay=decay))
        correction = GapAware(site)
        for n in range(3):
            update = Update(n, 0, site.versions.read(n))
            gradients = give_gradients(site, n)
            correction.correct(update)
            for p, g in zip(site.weights.trainable(), gradients, strict=True):
                torch.testing.assert_close(p.grad, g, rtol=0, atol=0.0 if exact else 1e-6)
            site.optimizer.step()
            correction.stepped(update)
            site.weights.version += 1


def test_before_the_first_step_nothing_has_moved() -> None:
    site = make_site()
    gradients = give_gradients(site, 0)
    GapAware(site).correct(Update(0, 0, site.weights.flat - 1.0))
    assert all(torch.equal(p.grad, g) for p, g in zip(site.weights.trainable(), gradients, strict=True))


def test_the_weights_of_every_group_count_with_its_own_rate() -> None:
    def two(given: list[nn.Parameter]) -> Optimizer:
        return SGD([{"params": given[:1], "lr": 0.5}, {"params": given[1:], "lr": 0.25}], momentum=0.9)

    site = make_site(optimizer=two)
    alone = [
        make_site(optimizer=lambda given, i=i: SGD(given[i : i + 1], lr=(0.5, 0.25)[i], momentum=0.9))  # type: ignore[misc]
        for i in range(2)
    ]
    for s in (site, *alone):
        train(s, None, 5)
    for i in range(2):
        assert torch.equal(site.weights.trainable()[i], alone[i].weights.trainable()[i])


def test_a_parameter_without_a_gradient_is_left_out() -> None:
    site = make_site()
    weight, bias = site.weights.trainable()
    correction = GapAware(site)
    for n in range(2):
        give_gradients(site, n)
        bias.grad = None
        update = Update(n, n, torch.zeros_like(site.weights.flat))
        correction.correct(update)
        site.optimizer.step()
        correction.stepped(update)
    assert bias.grad is None
    give_gradients(site, 2)
    before = bias.grad.clone()
    correction.correct(Update(2, 2, torch.zeros_like(site.weights.flat)))
    assert torch.equal(bias.grad, before), "no step of it is known yet"
    assert weight.grad.any()


def test_another_optimizer_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"gap-aware is defined for SGD \(optimizer: Adam\); take dc-asgd"):
        GapAware(make_site(copy.deepcopy(linear()), optimizer=Adam))


def test_it_asks_for_the_weights_of_the_forward() -> None:
    assert GapAware.needs_forwarded
