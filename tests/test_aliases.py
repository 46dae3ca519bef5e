"""What a copy of a model would part from what it looks at."""

from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn

from stalegrid.aliases import check_hooks, check_memory
from stalegrid.errors import ConfigError


class Holder:
    def __init__(self, parameter: nn.Parameter) -> None:
        self.parameter = parameter

    def hook(self, gradient: Tensor) -> Tensor:
        return gradient + self.parameter.detach()


def reading(kind: str, model: nn.Linear) -> Callable[[Tensor], Tensor]:
    weight = model.weight
    if kind == "closure over a parameter":
        return lambda gradient: gradient + 0.1 * weight.detach()
    if kind == "closure over the model":
        return lambda gradient: gradient + 0.1 * model.weight.detach()
    if kind == "default":
        return lambda gradient, w=weight: gradient + 0.1 * w.detach()
    if kind == "partial":
        return partial(torch.add, weight)
    return Holder(weight).hook


@pytest.mark.parametrize("kind", ["closure over a parameter", "closure over the model", "default", "partial", "method"])
def test_a_hook_that_reads_a_parameter_is_refused(kind: str) -> None:
    model = nn.Linear(2, 2)
    model.bias.register_hook(lambda gradient: gradient.clamp(-1, 1))
    check_hooks(model)
    model.weight.register_hook(reading(kind, model))
    with pytest.raises(ConfigError, match=r"hook of: weight, parameter: weight.*Correction"):
        check_hooks(model)


def line(*places: slice) -> nn.Module:
    model, values = nn.Linear(2, 2), torch.linspace(1, 2, 9)
    for i, place in enumerate(places):
        model.register_buffer(f"part{i}", values[place])
    return model


def test_tensors_in_each_others_memory_are_refused() -> None:
    check_memory(line(slice(0, 4), slice(4, 9)))
    with pytest.raises(ConfigError, match=r"share memory \(names: part0, part1\)"):
        check_memory(line(slice(0, 5), slice(4, 9)))
    tied = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
    tied[1].weight.data = tied[0].weight.data
    with pytest.raises(ConfigError, match=r"share memory"):
        check_memory(tied)
    tied[1].weight = tied[0].weight
    check_memory(tied)


@pytest.mark.parametrize("kept", [lambda w: w.data, lambda w: [w.detach()], lambda w: (w.data.t(),)])
def test_an_attribute_in_the_memory_of_a_parameter_is_refused(kept: Callable[[Tensor], object]) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    model[0].alias = kept(model[0].weight)
    with pytest.raises(ConfigError, match=r"share memory \(names: (0\.weight, 0\.alias|0\.alias, 0\.weight)\)"):
        check_memory(model)
    model[0].alias = model[0].weight
    model[0].elsewhere = [model[0].weight.detach().clone(), torch.ones(2)]
    check_memory(model)


def test_what_layers_of_torch_keep_of_their_own_parameters_is_fine() -> None:
    check_memory(nn.Sequential(nn.LSTM(3, 4, 2), nn.utils.spectral_norm(nn.Linear(4, 2)), nn.GRU(2, 2)))
    check_memory(nn.utils.parametrizations.weight_norm(nn.Linear(2, 2)))
    check_memory(nn.TransformerEncoderLayer(4, 2))
