"""Which factories of optimizers treat a parameter alike, whatever it is given together with."""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stalegrid.errors import ConfigError
from stalegrid.plans.sorting import check_sorting
from stalegrid.stages import by_name
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
    with pytest.raises(
        ConfigError, match=r"parameter: 1.weight, .*named_parameters, .*not by identity, place or number"
    ):
        check_sorting(task, parts(*HALVES))


def test_what_copies_keep_may_be_sorted_by() -> None:
    check_sorting(make_task(model=MODEL, optimizer=by_shape), parts(*WHOLE, *HALVES))


def by_names(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
    head = [p for name, p in named_parameters if name.startswith("2.")]
    return grouped(head, [p for _, p in named_parameters])


def test_names_may_be_sorted_by() -> None:
    check_sorting(make_task(model=MODEL, optimizer=by_names), parts(*WHOLE, *HALVES))


def test_names_by_which_a_part_calls_what_is_tied_are_the_models_own() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head, self.embed = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
            self.embed.weight = self.head.weight

    def chosen(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
        return SGD([{"params": [p], "lr": 0.5 if name == "head.weight" else 0.1} for name, p in named_parameters])

    model = Tied()
    part = {"embed.weight": copy.deepcopy(model.head.weight)}
    check_sorting(make_task(model=model, optimizer=chosen), [part])
    known = id(model.head.weight)
    by_identity = make_task(model=model, optimizer=lambda ps: SGD(ps, lr=0.5 if id(ps[0]) == known else 0.1))
    with pytest.raises(ConfigError, match=r"parameter: head\.weight, lr: 0\.1, there: 0\.5"):
        check_sorting(by_identity, [part])


def test_a_name_that_the_model_does_not_have_is_told_to_nobody() -> None:
    unknown = {"p_2_weight": copy.deepcopy(HEAD.weight)}
    check_sorting(make_task(model=MODEL, optimizer=by_shape), [unknown])
    with pytest.raises(ConfigError, match=r"another name in its stage .*parameter: p_2_weight"):
        check_sorting(make_task(model=MODEL, optimizer=by_names), [unknown])


def test_leaving_out_by_identity_is_refused() -> None:
    def others(parameters: Parameters) -> Optimizer:
        return SGD([p for p in parameters if id(p) not in IDS], lr=0.1)

    with pytest.raises(ConfigError, match=r"parameter: 2\.weight, left out: False, there: True"):
        check_sorting(make_task(model=MODEL, optimizer=others), parts(*WHOLE))


def test_leaving_out_by_a_mark_is_not() -> None:
    check_sorting(make_task(model=MODEL, optimizer=lambda ps: SGD([p for p in ps if p.ndim == 2])), parts(*HALVES))


def test_a_rate_that_is_a_tensor_is_compared_too() -> None:
    task = make_task(model=MODEL, optimizer=lambda ps: SGD(ps, lr=torch.tensor(0.5 / len(ps))))
    with pytest.raises(ConfigError, match=r"lr: 0\.25, there: 0\.125"):
        check_sorting(task, parts(*HALVES))


def test_which_of_several_optimizers_a_parameter_has_is_compared_too() -> None:
    def by_place(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
        first = named_parameters[0][0]
        return by_name({first: partial(SGD, lr=0.1)}, rest=partial(Adagrad, lr=0.1))(named_parameters)

    with pytest.raises(ConfigError, match=r"parameter: 2\.weight, optimizer: SGD, there: Adagrad"):
        check_sorting(make_task(model=MODEL, optimizer=by_place), parts(slice(2, 4)))


def test_a_choice_that_fits_no_parameter_of_the_model_is_refused_and_one_that_fits_none_of_a_part_is_not() -> None:
    adam = partial(Adagrad, lr=0.1)
    check_sorting(make_task(model=MODEL, optimizer=by_name({"2.*": adam}, rest=adam)), parts(*WHOLE, *HALVES))
    with pytest.raises(ConfigError, match=r"choice: 'head\.\*', parameters: 1\.weight, 1\.bias, 2\.weight, \.\.\.\)"):
        check_sorting(make_task(model=MODEL, optimizer=by_name({"head.*": adam}, rest=adam)), parts(*HALVES))


def in_order(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
    """Make a group for each kind of parameter, in the order in which kinds are met."""
    kinds: dict[str, Parameters] = {}
    for name, p in named_parameters:
        kinds.setdefault(name.rpartition(".")[2], []).append(p)
    return SGD([{"params": ps} for ps in kinds.values()], lr=0.1)


@pytest.mark.parametrize("late", [0, 100])
def test_a_schedule_that_parts_groups_by_place_is_refused_where_their_places_differ(late: int) -> None:
    def schedule(optimizer: Optimizer) -> LambdaLR:
        return LambdaLR(optimizer, [lambda n: 1.0, lambda n: 0.5 if n >= late else 1.0])

    check_sorting(make_task(model=MODEL, optimizer=in_order, scheduler=schedule), parts(*HALVES))
    turned = [dict(reversed(list(parts(slice(2, 4))[0].items())))]
    with pytest.raises(ConfigError, match=r"parameter: 2\.bias, lr.* there: 0\.05"):
        check_sorting(make_task(model=MODEL, optimizer=in_order, scheduler=schedule), turned)
    alike = partial(LambdaLR, lr_lambda=lambda n: 0.5)
    check_sorting(make_task(model=MODEL, optimizer=in_order, scheduler=alike), turned)


def test_other_parameters_than_were_given_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"other parameters than it was given.* if it is called named_parameters"):
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
