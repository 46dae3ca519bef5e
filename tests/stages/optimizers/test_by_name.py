"""Which of several optimizers trains a parameter."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer

from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.by_name import by_name
from stalegrid.stages.optimizers.joined import Joined

Named = list[tuple[str, nn.Parameter]]


def named() -> Named:
    parts = {"embed": nn.Embedding(5, 4), "blocks": nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4))}
    return list(nn.ModuleDict(parts).named_parameters())


def shares(optimizer: Optimizer) -> list[list[str]]:
    return [group["param_names"] for group in optimizer.param_groups]


def matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2


sgd, adam = partial(SGD, lr=0.1), partial(AdamW, lr=0.01)


def test_patterns_of_names() -> None:
    made = by_name({"embed.*": adam, "blocks.*.weight": sgd, "*.bias": partial(SGD, lr=0.5)})(named())
    assert shares(made) == [
        ["embed.weight"],
        ["blocks.0.weight", "blocks.1.weight"],
        ["blocks.0.bias", "blocks.1.bias"],
    ]
    assert [group["lr"] for group in made.param_groups] == [0.01, 0.1, 0.5]


def test_functions_of_name_and_parameter_and_a_rest() -> None:
    pairs = named()
    made = by_name({lambda n, p: matrix(n, p) and "embed" not in n: sgd}, rest=adam)(pairs)
    assert isinstance(made, Joined)
    assert shares(made) == [["blocks.0.weight"], ["embed.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]]
    known = dict(pairs)
    for group in made.param_groups:
        assert all(known[n] is p for n, p in zip(group["param_names"], group["params"], strict=True))


def test_patterns_mind_cases_and_match_whole_names() -> None:
    with pytest.raises(ConfigError, match="no optimizer is chosen"):
        by_name({"Blocks.*": sgd, "bed.weight": sgd})(named())


def test_a_parameter_that_nobody_takes_is_refused_by_name() -> None:
    with pytest.raises(
        ConfigError, match=r"parameter: blocks\.0\.bias, choices: '\*\.weight'\); name one for the rest"
    ):
        by_name({"*.weight": sgd})(named())


def test_a_parameter_that_two_take_is_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"parameter: embed\.weight, choices: 'embed\.\*', matrix\)"):
        by_name({"embed.*": sgd, matrix: adam}, rest=adam)(named())


def test_no_choice_is_refused() -> None:
    with pytest.raises(ConfigError, match="nothing to choose"):
        by_name({}, rest=sgd)


def test_who_gets_nothing_keeps_its_groups_for_a_schedule() -> None:
    def grouped(parameters: list[nn.Parameter]) -> Optimizer:
        few, many = ([p for p in parameters if (p.ndim < 2) is small] for small in (True, False))
        return Adagrad([{"params": few, "lr": 0.25}, {"params": many}], lr=0.5)

    made = by_name({"head.*": grouped, "*": sgd}, rest=adam)(named())
    assert [group["lr"] for group in made.param_groups] == [0.25, 0.5, 0.1, 0.01]
    assert [len(group["params"]) for group in made.param_groups] == [0, 0, 5, 0]
    assert isinstance(made, Joined)
    assert made.idle == ("'head.*'",)
    assert not made.state
    for _, p in (pairs := list(zip(made.param_groups[2]["param_names"], made.param_groups[2]["params"], strict=True))):
        p.grad = torch.ones_like(p)
    before = [p.detach().clone() for _, p in pairs]
    made.step()
    assert all(torch.equal(p, old - 0.1) for (_, p), old in zip(pairs, before, strict=True))


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this torch has no Muon")
def test_muon_begins_without_a_matrix() -> None:
    muon: Any = torch.optim.Muon
    made = by_name({matrix: partial(muon, lr=0.5)}, rest=sgd)([("bias", nn.Parameter(torch.ones(3)))])
    assert [group["lr"] for group in made.param_groups] == [0.5, 0.1]
    made.step()


def test_a_choice_may_be_a_factory_of_named_parameters() -> None:
    def inner(named_parameters: Named) -> Optimizer:
        return SGD([{"params": [p], "lr": float(len(name))} for name, p in named_parameters])

    made = by_name({"blocks.*": inner, "embed.*": sgd})(named())
    assert [group["lr"] for group in made.param_groups] == [15.0, 13.0, 15.0, 13.0, 0.1]
