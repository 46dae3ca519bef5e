"""Which factories of optimizers treat a parameter alike, whatever it is given together with."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from stalegrid.errors import ConfigError
from stalegrid.plans.sorting import check_sorting
from tests.cases import build, images, make_task, train

MODEL = build(lambda: nn.Sequential(nn.Flatten(), nn.Linear(72, 5), nn.Linear(5, 3)))
HEAD = MODEL[2]
IDS = {id(p) for p in HEAD.parameters()}

Parameters = list[nn.Parameter]


def grouped(chosen: Parameters, parameters: Parameters) -> Optimizer:
    rest = [p for p in parameters if not any(p is q for q in chosen)]
    return SGD([{"params": chosen, "lr": 1.0}, {"params": rest}], lr=0.1)


def by_id(parameters: Parameters) -> Optimizer:
    return grouped([p for p in parameters if id(p) in IDS], parameters)


def by_module() -> Callable[[Parameters], Optimizer]:
    head = MODEL[2]  # in the closure
    return lambda ps: grouped([p for p in ps if any(p is q for q in head.parameters())], ps)


def by_list() -> Callable[[Parameters], Optimizer]:
    chosen = list(HEAD.parameters())
    return lambda ps: grouped([p for p in ps if any(p is q for q in chosen)], ps)


def by_place(parameters: Parameters) -> Optimizer:
    return grouped(parameters[-2:], parameters)


def by_number(parameters: Parameters) -> Optimizer:
    return SGD(parameters, lr=0.1 / len(parameters))


def by_shape(parameters: Parameters) -> Optimizer:
    return grouped([p for p in parameters if p.ndim < 2], parameters)


def parts(*which: slice) -> list[dict[str, nn.Parameter]]:
    own = list(copy.deepcopy(MODEL).named_parameters())
    return [dict(own[part]) for part in which]


WHOLE, HALVES = (slice(None),), (slice(0, 2), slice(2, 4))


@pytest.mark.parametrize("factory", [by_id, by_module(), by_list()], ids=["id", "module", "list"])
@pytest.mark.parametrize("which", [WHOLE, HALVES])
def test_identity_is_refused_however_it_is_known(factory: Any, which: Any) -> None:
    with pytest.raises(ConfigError, match=r"\(parameter: 2\.weight, lr: 0\.1, there: 1\.0\)"):
        check_sorting(make_task(model=MODEL, optimizer=factory), parts(*which))


@pytest.mark.parametrize("factory", [by_place, by_number])
def test_place_and_number_are_refused_where_the_model_is_parted(factory: Any) -> None:
    task = make_task(model=MODEL, optimizer=factory)
    check_sorting(task, parts(*WHOLE))
    with pytest.raises(ConfigError, match=r"parameter: 1.weight, .*not by identity, place or number"):
        check_sorting(task, parts(*HALVES))


def test_what_copies_keep_may_be_sorted_by() -> None:
    check_sorting(make_task(model=MODEL, optimizer=by_shape), parts(*WHOLE, *HALVES))


def test_other_parameters_than_were_given_are_refused() -> None:
    with pytest.raises(ConfigError, match="other parameters than it was given"):
        check_sorting(make_task(model=MODEL, optimizer=lambda _: SGD(MODEL.parameters(), lr=0.1)), parts(*WHOLE))


def test_a_factory_that_fails_is_an_error_of_configuration() -> None:
    def broken(parameters: Parameters) -> Optimizer:
        raise ZeroDivisionError("ouch")

    with pytest.raises(ConfigError, match="cannot be built: ouch"):
        check_sorting(make_task(model=MODEL, optimizer=broken), parts(*WHOLE))


class Normed(SGD):
    """Scales all gradients by their norm."""

    def step(self, closure: Any = None) -> None:
        nn.utils.clip_grad_norm_([p for group in self.param_groups for p in group["params"]], 0.1)
        super().step(closure)


def test_a_step_that_couples_parameters_is_refused_where_the_model_is_parted() -> None:
    task = make_task(model=MODEL, optimizer=lambda ps: Normed(ps, lr=0.1))
    check_sorting(task, parts(*WHOLE))
    with pytest.raises(ConfigError, match=r"depends on all parameters that it has \(parameter: 1\.weight\).*clip"):
        check_sorting(task, parts(*HALVES))


@pytest.mark.parametrize("kind", [torch.optim.AdamW, torch.optim.RMSprop, torch.optim.NAdam, torch.optim.Adagrad])
def test_torchs_optimizers_couple_nothing(kind: Any) -> None:
    check_sorting(make_task(model=MODEL, optimizer=lambda ps: kind(ps, lr=0.1)), parts(*WHOLE, *HALVES))


@pytest.mark.parametrize(
    "settings",
    [
        {"method": "pipedream", "stages": 2, "cuts": ["2"]},
        {"method": "asgd", "learners": 2, "servers": 2},
    ],
)
def test_stages_and_servers_are_held_against_the_whole_model(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="place or number"):
        train(
            MODEL,
            images(),
            loss=nn.CrossEntropyLoss(),
            optimizer=by_place,
            batch_size=4,
            updates=2,
            engine="simulator",
            quiet=True,
            **settings,
        )
    assert all(p.grad is None for p in MODEL.parameters())
    assert torch.is_grad_enabled()
