"""Error feedback against its formula, with updates worked out beside the one that is corrected."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from stalegrid.errors import ConfigError
from stalegrid.stages.corrections.error_feedback import ErrorFeedback, ErrorFeedbackByStaleness
from stalegrid.stages.corrections.named import Correction, Update, makers
from stalegrid.stages.site import Site
from stalegrid.studies.reference.error_feedback import fed_back
from tests.sites import give_gradients, linear, make_site, noise, parameters

Make = Callable[[list[nn.Parameter]], Optimizer]


class Fixed(Optimizer):
    """Moves every parameter that has a gradient by it, times the rate."""

    def __init__(self, given: list[nn.Parameter], lr: float = 1.0) -> None:
        super().__init__(given, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    p -= group["lr"] * p.grad


def update(site: Site, corrections: Sequence[Correction], staleness: int = 1) -> None:
    """Make an update of the gradients that are there, as a unit does."""
    made = Update(site.weights.version, staleness, None)
    for correction in corrections:
        correction.stepping(made)
    site.optimizer.step()
    for correction in corrections:
        correction.stepped(made)
    site.weights.version += 1


def moves(correction: Correction, gradients: Sequence[float | None], staleness: int = 1) -> list[float]:
    """Return how far each update moves the bias, whose gradient is a whole number: exact in any order."""
    site = correction.site
    moved = []
    for value in gradients:
        for p in site.weights.trainable():
            p.grad = None if value is None else torch.full_like(p, value)
        before = site.weights.flat.clone()
        update(site, [correction], staleness)
        (change,) = set((before - site.weights.flat)[: site.weights.trained].unique().tolist()) - {0.0} or {0.0}
        moved.append(change)
    return moved


def exact(kind: type[ErrorFeedback] = ErrorFeedback, c: float = 1.0) -> ErrorFeedback:
    """Return one of weights that are whole numbers, which move by the gradients."""
    module = linear()
    for p in module.parameters():
        nn.init.zeros_(p)
    return kind(make_site(module, optimizer=Fixed), c)


def test_the_difference_to_the_last_update_is_added_once_more() -> None:
    assert moves(exact(), [3.0, 5.0, 5.0, 4.0]) == [3.0, 5.0 + 2.0, 5.0, 4.0 - 1.0]
    assert moves(exact(c=0.5), [4.0, 8.0, 2.0]) == [4.0, 8.0 + 2.0, 2.0 - 3.0]
    assert moves(exact(c=0.0), [4.0, 8.0, 2.0]) == [4.0, 8.0, 2.0]


def test_a_missing_gradient_leaves_the_weights_alone_and_the_next_update_differs_from_0() -> None:
    assert moves(exact(), [3.0, None, 5.0, 5.0]) == [3.0, 0.0, 5.0 + 5.0, 5.0]
    assert moves(exact(), [None, 5.0]) == [0.0, 5.0 + 5.0]


class Drifting(Fixed):
    """Moves parameters without a gradient too, by 16."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        super().step()
        for p in self.param_groups[0]["params"]:
            if p.grad is None:
                p -= 16.0


def test_what_an_optimizer_does_without_a_gradient_is_no_update_to_differ_from() -> None:
    correction = exact()
    correction.site.optimizer.__class__ = Drifting
    assert moves(correction, [3.0, None, 5.0]) == [3.0, 16.0, 5.0 + 5.0]


def test_what_is_remembered_is_at_the_rate_of_its_time() -> None:
    correction = exact()
    assert moves(correction, [4.0]) == [4.0]
    correction.site.optimizer.param_groups[0]["lr"] = 0.5
    assert moves(correction, [4.0]) == [2.0 + (2.0 - 4.0) or 0.0]
    assert moves(correction, [4.0]) == [2.0]


@pytest.mark.parametrize(("staleness", "second"), [(0, 5.0), (1, 7.0), (2, 9.0), (4, 13.0)])
def test_the_experiment_multiplies_with_the_measured_staleness(staleness: int, second: float) -> None:
    assert moves(exact(ErrorFeedbackByStaleness), [3.0, 5.0], staleness) == [3.0, second]


def test_each_takes_what_those_before_it_have_made_for_the_step() -> None:
    for first, second in ((1.0, 0.5), (0.5, 1.0)):
        site = exact().site
        chain = [ErrorFeedback(site, first), ErrorFeedback(site, second)]
        moved, steps = [], [4.0, 8.0, 8.0]
        for value in steps:
            for p in site.weights.trainable():
                p.grad = torch.full_like(p, value)
            before = float(site.weights.flat[0])
            update(site, chain)
            moved.append(before - float(site.weights.flat[0]))
        inner = [4.0, 8.0 + first * 4.0, 8.0]
        assert moved == [4.0, inner[1] + second * (inner[1] - 4.0), 8.0 + second * (8.0 - inner[1])]


MUON = [partial(torch.optim.Muon, lr=0.1, weight_decay=0.1)] if hasattr(torch.optim, "Muon") else []
OPTIMIZERS: list[Make] = [
    partial(SGD, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    partial(AdamW, lr=0.1, weight_decay=0.1, foreach=True),
    partial(AdamW, lr=0.1, weight_decay=0.1, fused=True),
    partial(Adagrad, lr=0.1, weight_decay=0.1, foreach=False),
    *MUON,
]


@pytest.mark.parametrize("optimizer", OPTIMIZERS, ids=lambda o: f"{o.func.__name__}")
def test_any_optimizer_is_fed_back_to_the_bit(optimizer: Make) -> None:
    site = make_site(nn.Linear(5, 4, bias=False), optimizer=optimizer)
    weight = nn.Parameter(site.weights.trainable()[0].detach().clone())
    reference = fed_back(lambda named: optimizer([p for _, p in named]), 0.75)([("weight", weight)])
    correction = ErrorFeedback(site, 0.75)
    for n in range(6):
        for group in (*site.optimizer.param_groups, *reference.param_groups):
            group["lr"] = 0.1 / (n + 1)
        (gradient,) = give_gradients(site, n)
        weight.grad = gradient if n != 3 else None
        site.weights.trainable()[0].grad = None if n == 3 else gradient.clone()
        update(site, [correction])
        reference.step()
        assert torch.equal(site.weights.trainable()[0], weight)


class Mixed(nn.Module):
    """A frozen parameter, running statistics, and a parameter that is trained."""

    def __init__(self) -> None:
        super().__init__()
        self.frozen = nn.Parameter(noise(3), requires_grad=False)
        self.norm = nn.BatchNorm1d(3)


def test_running_statistics_and_frozen_parameters_are_nobodys_update() -> None:
    site = make_site(Mixed(), optimizer=partial(SGD, lr=0.5))
    correction = ErrorFeedback(site)
    trained = site.weights.trained
    for n in range(3):
        site.weights.flat[trained:] += n + 1.0  # as forwards do, and mixing
        rest, frozen = site.weights.flat[trained:].clone(), site.weights.still()["frozen"].clone()
        give_gradients(site, n)
        update(site, [correction])
        assert torch.equal(site.weights.flat[trained:], rest)
        assert torch.equal(site.weights.still()["frozen"], frozen)
        assert correction.nbytes == parameters(site).nbytes < site.weights.flat.nbytes


def test_what_moves_the_weights_between_two_updates_is_not_fed_back() -> None:
    correction = exact()
    assert moves(correction, [3.0]) == [3.0]
    correction.site.weights.flat[: correction.site.weights.trained] += 64.0
    assert moves(correction, [3.0, 5.0]) == [3.0, 7.0]


def test_one_vector_is_kept_from_one_update_to_the_next() -> None:
    site = make_site()
    correction = ErrorFeedback(site)
    assert correction.nbytes == 0
    for n in range(3):
        give_gradients(site, n)
        update(site, [correction])
        kept = [x for x in vars(correction).values() if isinstance(x, Tensor)]
        assert sum(x.nbytes for x in kept) == correction.nbytes == correction.vectors * parameters(site).nbytes


BY_STALENESS = "error-feedback-by-staleness=0.5"


def test_the_number_after_the_name_is_c_and_1_where_there_is_none() -> None:
    site = make_site()
    told, usual, experiment = (m(site) for m in makers(["error-feedback=0.25", "error-feedback", BY_STALENESS]))
    assert isinstance(told, ErrorFeedback)
    assert isinstance(usual, ErrorFeedback)
    assert isinstance(experiment, ErrorFeedbackByStaleness)
    at = Update(5, 3, None)
    assert [told.strength(at), usual.strength(at), experiment.strength(at)] == [0.25, 1.0, 1.5]


@pytest.mark.parametrize("kind", [ErrorFeedback, ErrorFeedbackByStaleness])
@pytest.mark.parametrize("c", [-0.5, float("nan")])
def test_less_than_nothing_is_refused(kind: type[ErrorFeedback], c: float) -> None:
    with pytest.raises(ConfigError, match=rf"adds 0 or more of the difference between two updates \(c: {c}\)"):
        kind(make_site(), c)
