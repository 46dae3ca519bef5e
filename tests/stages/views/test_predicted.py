from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adam, AdamW, NAdam, Optimizer, RMSprop

from stalegrid.errors import ConfigError
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.stages.site import Site, part
from stalegrid.stages.views.named import Kept
from stalegrid.stages.views.predicted import Predicted, PredictedTwice
from tests.sites import linear, make_site, parameters, step

VIEWS = [Predicted, PredictedTwice]
Make = Callable[[list[nn.Parameter]], Optimizer]

SGDS: dict[str, Make] = {
    "momentum": partial(SGD, lr=0.125, momentum=0.9, weight_decay=0.25),
    "nesterov": partial(SGD, lr=0.125, momentum=0.5, nesterov=True),
    "dampened": partial(SGD, lr=0.125, momentum=0.9, dampening=0.25),
    "maximized": partial(SGD, lr=0.125, momentum=0.9, maximize=True),
}
ADAMS: dict[str, Make] = {
    "adam": partial(Adam, lr=0.03, betas=(0.8, 0.95), eps=1e-3, weight_decay=0.25),
    "adamw": partial(AdamW, lr=0.03, betas=(0.9, 0.99), weight_decay=0.25),
}


def by_momentum(site: Site, updates: int) -> Tensor:
    vector = parameters(site)
    for p in site.weights.trainable():
        lr = site.optimizer.param_groups[0]["lr"]
        part(vector, p).copy_(p.detach() - site.optimizer.state[p]["momentum_buffer"] * (lr * updates))
    return vector


def by_moments(site: Site, updates: int) -> Tensor:
    vector = parameters(site)
    for p in site.weights.trainable():
        group, state = site.optimizer.param_groups[0], site.optimizer.state[p]
        t = site.weights.version
        assert int(state["step"]) == t
        mean = state["exp_avg"] / (1 - group["betas"][0] ** t)
        square = state["exp_avg_sq"] / (1 - group["betas"][1] ** t)
        part(vector, p).copy_(p.detach() - mean / (square.sqrt() + group["eps"]) * (group["lr"] * updates))
    return vector


@pytest.mark.parametrize("name", [*SGDS, *ADAMS])
def test_weights_are_extrapolated_along_the_optimizers_direction(name: str) -> None:
    by_hand = by_momentum if name in SGDS else by_moments
    site = make_site(optimizer=(SGDS | ADAMS)[name])
    view = Predicted(site)
    for version in range(4):
        for updates in (1, 3):
            ahead = view.ahead(updates)
            if version:
                assert torch.equal(ahead, by_hand(site, updates))
                assert not torch.equal(ahead, parameters(site))
            else:
                assert torch.equal(ahead, parameters(site)), "there is no state yet"
        step(site, view)


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(SGD, lr=0.125, momentum=0.9),
        partial(Adam, lr=0.03),
        partial(AdamW, lr=0.03, weight_decay=0.0),
    ],
    ids=["sgd", "adam", "adamw"],
)
def test_one_update_ahead_repeats_the_last_step(optimizer: Make) -> None:
    """Not bit for bit: torch's optimizers multiply and divide the same numbers in another order."""
    site = make_site(optimizer=optimizer)
    view = Predicted(site)
    for _ in range(3):
        before = parameters(site)
        step(site, view)
        torch.testing.assert_close(view.ahead(1), 2 * parameters(site) - before, rtol=1e-6, atol=1e-6)


def test_decoupled_weight_decay_is_not_extrapolated() -> None:
    site, other = (make_site(optimizer=partial(AdamW, lr=0.03, weight_decay=d)) for d in (0.0, 0.5))
    views = Predicted(site), Predicted(other)
    for s in (site, other):
        step(s)
    other.weights.flat.copy_(site.weights.flat)
    assert torch.equal(views[0].ahead(2), views[1].ahead(2))


def test_the_rate_is_that_of_now_and_of_the_parameters_own_group() -> None:
    def two_groups(given: list[nn.Parameter]) -> Optimizer:
        return SGD([{"params": given[:1], "lr": 0.5}, {"params": given[1:], "lr": 0.25}], momentum=0.9)

    site = make_site(optimizer=two_groups)
    view = Predicted(site)
    step(site, view)
    site.optimizer.param_groups[1]["lr"] = 0.0625
    ahead = view.ahead(2)
    weight, bias = site.weights.trainable()
    buffers = [site.optimizer.state[p]["momentum_buffer"] for p in (weight, bias)]
    assert torch.equal(part(ahead, weight), weight - buffers[0] * (0.5 * 2))
    assert torch.equal(part(ahead, bias), bias - buffers[1] * (0.0625 * 2))


def test_a_parameter_without_a_gradient_stays_where_it_is() -> None:
    site = make_site()
    view = Predicted(site)
    weight, bias = site.weights.trainable()
    weight.grad = torch.ones_like(weight)
    site.optimizer.step()
    ahead = view.ahead(1)
    assert torch.equal(part(ahead, bias), bias)
    assert not torch.equal(part(ahead, weight), weight)


@pytest.mark.parametrize("view", VIEWS)
def test_a_prediction_leaves_the_weights_and_the_optimizer_alone(view: type[Predicted]) -> None:
    site = make_site(staleness=(4, 0))
    predicting = view(site)
    step(site, predicting)
    before, state = parameters(site), {k: v["momentum_buffer"].clone() for k, v in site.optimizer.state.items()}
    predicting.forwarding(3)
    predicting.seen(0)
    assert torch.equal(parameters(site), before)
    assert all(torch.equal(site.optimizer.state[k]["momentum_buffer"], v) for k, v in state.items())
    assert site.versions.nbytes == predicting.nbytes == 0


@pytest.mark.parametrize(("micro_batches", "expected"), [(1, [4, 5, 6]), (2, [1, 2, 2])])
def test_a_forward_looks_ahead_to_the_batchs_own_update(micro_batches: int, expected: list[int]) -> None:
    site = make_site(staleness=(6, 0), micro_batches=micro_batches)
    view = Predicted(site)
    step(site, view)
    for batch, updates in zip((5, 6, 7), expected, strict=True):
        version, vector = view.forwarding(batch)
        assert version == 1
        assert torch.equal(vector, by_momentum(site, updates))
    assert view.seen(0) is site.weights.flat


def test_a_batch_that_is_due_now_is_forwarded_at_the_weights_of_now() -> None:
    site = make_site()
    view = Predicted(site)
    step(site, view)
    assert view.forwarding(1) == (1, site.weights.flat)


def horizons(view: type[Predicted], **where: Any) -> tuple[int, int]:
    """Return how many updates ahead the forward of the latest batch and its backward look, after one update."""
    site = make_site(**where)
    predicting = view(site)
    step(site, predicting)
    micro = site.schedule.micro_batches
    latest = site.schedule.windows[site.unit.stage] - 1 + micro
    seen = [predicting.forwarding(latest)[1], predicting.seen(0)]
    candidates = {n: by_momentum(site, n) for n in range(1, 12)} | {0: site.weights.flat}
    first, second = (
        [
            n
            for n, vector in candidates.items()
            if torch.equal(vector[: site.weights.trained], s[: site.weights.trained])
        ]
        for s in seen
    )
    return first[0], second[0]


@pytest.mark.parametrize("stages", [1, 2, 3, 4, 5])
def test_horizons_of_the_published_method(stages: int) -> None:
    staleness = [stages - 1 - k for k in range(stages)]
    for k in range(stages):
        where = {"staleness": staleness, "stage": k}
        assert horizons(PredictedTwice, **where) == (k // 2 + stages - 1 - k, k // 2)
        assert horizons(Predicted, **where) == (stages - 1 - k, 0)


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"staleness": (6, 3, 0), "stage": 0}, (6, 0)),
        ({"staleness": (6, 3, 0), "stage": 1}, (4, 1)),
        ({"staleness": (6, 3, 0), "stage": 2}, (3, 3)),
        ({"staleness": (6, 3, 0), "stage": 2, "micro_batches": 2}, (1, 1)),
        ({"staleness": (4, 4), "stage": 1}, (4, 0)),
    ],
)
def test_horizons_of_any_staleness(where: dict[str, Any], expected: tuple[int, int]) -> None:
    assert horizons(PredictedTwice, **where) == expected


@pytest.mark.parametrize("view", VIEWS)
def test_with_a_flush_nothing_is_predicted(view: type[Predicted]) -> None:
    for schedule in (gpipe(2, 4), one_f_one_b(2, 4), Schedule((9, 1), 4, flush=True)):
        site = make_site(schedule=schedule, stage=1)
        predicting = view(site)
        step(site, predicting)
        assert predicting.forwarding(5) == (1, site.weights.flat)
        assert predicting.seen(1) is site.weights.flat


def mixed(given: list[nn.Parameter]) -> Optimizer:
    return SGD([{"params": given[:1], "momentum": 0.9}, {"params": given[1:], "momentum": 0.0}], lr=0.1)


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize(
    ("optimizer", "shown"),
    [
        (partial(SGD, lr=0.1), "SGD without momentum"),
        (mixed, "SGD without momentum"),
        (partial(Adam, amsgrad=True), "Adam"),
        (partial(AdamW, amsgrad=True), "AdamW"),
        (NAdam, "NAdam"),
        (RMSprop, "RMSprop"),
    ],
)
def test_an_optimizer_with_nothing_to_extrapolate_is_refused(
    view: type[Predicted], optimizer: Make, shown: str
) -> None:
    with pytest.raises(ConfigError, match=rf"\(optimizer: {shown}\); take SGD with momentum, Adam or AdamW"):
        view(make_site(linear(), optimizer=optimizer))


def test_it_keeps_no_copy() -> None:
    assert Predicted.kept(stale([4, 2, 0]), 0) == PredictedTwice.kept(stale([4, 2, 0]), 0) == Kept(5, 0, 0)
