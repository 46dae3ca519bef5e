"""Which factories are given names, and what they may return."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer
from torch.optim import lr_scheduler as schedules

from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.given import make_optimizer, make_scheduler, takes_names


def make(named_parameters: Any, lr: float = 0.1) -> Optimizer:
    return SGD([p for _, p in named_parameters], lr=lr)


class Callables:
    def __call__(self, named: Any) -> Optimizer:
        return make(named)

    def method(self, named_params: Any) -> Optimizer:
        return make(named_params)


class Own(SGD):
    def __init__(self, named_parameters: Any) -> None:
        super().__init__([p for _, p in named_parameters], lr=0.1)


def pair() -> list[tuple[str, nn.Parameter]]:
    return list(nn.Linear(2, 3).named_parameters())


@pytest.mark.parametrize(
    "factory",
    [
        make,
        lambda named: make(named),
        partial(make, lr=0.5),
        partial(lambda lr, named_parameters: make(named_parameters, lr), 0.5),
        Callables(),
        Callables().method,
        Own,
    ],
)
def test_a_first_argument_that_is_called_named_is_given_names(factory: Callable[..., Optimizer]) -> None:
    named = pair()
    assert takes_names(factory)
    assert make_optimizer(factory, named).param_groups[0]["params"] == [p for _, p in named]


@pytest.mark.parametrize(
    "factory",
    [
        SGD,
        partial(AdamW, lr=0.1),
        lambda parameters: SGD(parameters, lr=0.1),
        lambda *named: SGD(*named, lr=0.1),
        lambda parameters, named=None: SGD(parameters, lr=0.1),
    ],
)
def test_all_others_are_given_parameters(factory: Callable[..., Optimizer]) -> None:
    named = pair()
    assert not takes_names(factory)
    made = make_optimizer(factory, named)
    assert all(p is q for p, (_, q) in zip(made.param_groups[0]["params"], named, strict=True))
    assert "param_names" not in made.param_groups[0]


def test_an_optimizer_in_the_place_of_its_factory_is_told_so() -> None:
    with pytest.raises(ConfigError, match=r"made already.*\(optimizer: SGD\); .* lambda parameters: torch.optim.SGD\("):
        make_optimizer(SGD([p for _, p in pair()], lr=0.1), pair())  # type: ignore[arg-type]


def test_a_factory_that_fails_hears_what_it_was_given() -> None:
    with pytest.raises(ConfigError, match=r"cannot be built: .* gets names too if its argument is called named_param"):
        make_optimizer(lambda parameters: SGD([p for _, p in parameters], lr=0.1), pair())
    with pytest.raises(ConfigError, match=r"cannot be built: .* is given: names and parameters; a group takes the"):
        make_optimizer(lambda named: SGD([{"params": named}, {"params": []}], lr=0.1), pair())


@pytest.mark.parametrize("found", [None, [SGD(nn.Linear(1, 1).parameters())]])
def test_what_is_no_optimizer_is_refused(found: Any) -> None:
    with pytest.raises(ConfigError, match=rf"it returns: {type(found).__name__}\); .*stalegrid\.by_name"):
        make_optimizer(lambda _: found, pair())


def test_a_step_that_needs_a_closure_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"optimizer: LBFGS, its step needs: closure.*AdamW"):
        make_optimizer(torch.optim.LBFGS, pair())


def test_a_schedule_that_needs_a_loss_is_refused() -> None:
    optimizer = make(pair())
    with pytest.raises(ConfigError, match=r"ReduceLROnPlateau, its step needs: metrics.*SequentialLR"):
        make_scheduler(schedules.ReduceLROnPlateau, optimizer)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no torch scheduler \(it returns: dict\)"):
        make_scheduler(lambda _: {}, optimizer)  # type: ignore[arg-type,return-value]
    assert isinstance(make_scheduler(partial(schedules.ExponentialLR, gamma=0.5), optimizer), schedules.ExponentialLR)
