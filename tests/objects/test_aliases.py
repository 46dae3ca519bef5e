"""What a copy of a model would part from what it looks at."""

import weakref
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import LambdaLR
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import TensorDataset

from stalegrid.errors import ConfigError
from stalegrid.objects.aliases import check_followed, check_functions, check_hooks, check_memory, check_readers
from stalegrid.stages import by_name
from tests import cases


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
    with pytest.raises(ConfigError, match=r"hook of: weight, reads: (weight|Linear).*Correction"):
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


class Auxiliary(nn.Linear):
    """Leaves an auxiliary loss on itself."""

    aux = 0.0


class Penalised(nn.Module):
    """A loss that holds a model without registering it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.holder = {"model": model}

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        return (outputs - targets).mean() + self.holder["model"].aux


MODELS: dict[str, nn.Module] = {}


def by_global(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).mean() + MODELS["model"].aux


def by_helper(outputs: Tensor, targets: Tensor) -> Tensor:
    return by_global(outputs, targets)


def by_attribute_of_that_name(outputs: Any, targets: Any) -> Any:
    return outputs.MODELS - targets.MODELS


def plain(outputs: Tensor, targets: Tensor) -> Tensor:
    return (outputs - targets).mean()


def looking(kind: str, model: nn.Module) -> Callable[..., Any]:
    if kind == "closure":
        return lambda y, t: plain(y, t) + model.aux
    if kind == "inner function":
        return lambda: lambda: MODELS["model"]
    if kind == "weak":
        pointer = weakref.ref(model)
        return lambda y, t: plain(y, t) + pointer().aux
    if kind == "tensor":
        return partial(plain, targets=model.weight)
    return {"module": Penalised(model), "method": model.forward, "global": by_global, "helper": by_helper}[kind]


@pytest.mark.parametrize(
    "kind", ["closure", "inner function", "weak", "tensor", "module", "method", "global", "helper"]
)
def test_a_loss_or_a_scheduler_that_reads_the_model_is_refused(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = Auxiliary(2, 2)
    monkeypatch.setitem(MODELS, "model", model)
    function = looking(kind, model)
    with pytest.raises(ConfigError, match=r"the loss reads the model \(reads: (Auxiliary|weight)\).*further output"):
        check_readers(model, loss=function)
    with pytest.raises(ConfigError, match=r"the scheduler reads the model"):
        check_readers(model, loss=plain, scheduler=lambda optimizer: LambdaLR(optimizer, function))
    check_readers(nn.Linear(2, 2), loss=function)


def test_a_loss_that_only_could_read_the_model_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    model = Auxiliary(2, 2)
    monkeypatch.setitem(MODELS, "model", model)
    ids = {id(p) for p in model.parameters()}
    for function in (plain, by_attribute_of_that_name, nn.CrossEntropyLoss(), lambda y, t: plain(y, t) + len(ids)):
        check_readers(model, loss=function, scheduler=None)


@pytest.mark.parametrize("method", [{"method": "sgd"}, {"method": "hardsync", "learners": 1}])
def test_it_is_refused_before_training_on_grids_and_with_servers(method: dict[str, Any]) -> None:
    model = nn.Linear(6, 3)
    with pytest.raises(ConfigError, match=r"the loss reads the model"):
        cases.train(
            model,
            TensorDataset(torch.ones(8, 6), torch.zeros(8, 3)),
            loss=lambda y, t: plain(y, t) + model.weight.detach().norm(),
            optimizer=partial(SGD, lr=0.1),
            batch_size=4,
            updates=1,
            quiet=True,
            **method,
        )


class Keeping(nn.Module):
    """Keeps a function, made of itself, in an attribute, a list, a partial, or as a hook of a part."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(2)
        if kind == "hook":
            self.norm.register_forward_hook(lambda module, inputs, output: output * self.training)
        else:
            normed = lambda x: self.norm(x)  # noqa: E731 - as people write it
            kept = {"attribute": normed, "list": [normed], "partial": partial(normed), "weak": weakref.ref(self.norm)}
            self.kept = kept[kind]

    def act(self, x: Tensor) -> Tensor:
        return self.norm(x)  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", ["attribute", "list", "partial", "weak", "hook"])
def test_a_function_of_the_model_that_looks_at_it_is_refused(kind: str) -> None:
    place = "1.norm._forward_hooks" if kind == "hook" else "1.kept"
    with pytest.raises(ConfigError, match=rf"attribute: {place}, reads: 1.*a method of its module"):
        check_functions(nn.Sequential(nn.Linear(2, 2), Keeping(kind)))


def test_what_a_copy_of_the_model_has_for_itself_is_fine() -> None:
    keeping = Keeping("attribute")
    keeping.kept = keeping.act
    keeping.norm.register_forward_hook(keeping.act)
    torch_s = [nn.TransformerEncoderLayer(4, 2), nn.utils.parametrizations.spectral_norm(nn.Linear(2, 2))]
    check_functions(nn.Sequential(keeping, *torch_s, nn.LazyLinear(2), torch.compile(nn.Linear(2, 2), backend="eager")))


def collecting(store: Any) -> tuple[nn.Module, Callable[..., Any]]:
    model = nn.Linear(6, 3)
    model.register_forward_hook(lambda module, inputs, output: store.append(output))
    return model, lambda y, t: plain(y, t) + len(store)


def test_a_loss_that_reads_what_a_hook_fills_is_refused() -> None:
    model, loss = collecting([])
    with pytest.raises(ConfigError, match=r"the loss and a hook .* share state \(list: \[\]\)"):
        check_readers(model, loss=loss)
    check_readers(collecting([])[0], loss=loss)
    settings = {"weight": 0.1}
    model.register_forward_hook(lambda module, inputs, output: output * settings["weight"])
    check_readers(model, loss=lambda y, t: settings["weight"] * plain(y, t))


def test_a_state_where_the_forward_is_followed_is_refused() -> None:
    model = nn.Sequential(collecting([])[0])
    check_followed(model)
    model.append(Keeping("attribute"))
    calls = [0]
    model[1].kept = lambda x: x / calls[0]
    with pytest.raises(ConfigError, match=r"attribute: 1\.kept, state: \[0\]"):
        check_followed(model)


def test_a_state_that_a_cut_may_part_is_refused() -> None:
    model, calls = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), [0]
    model[0].register_forward_hook(lambda module, inputs, output: output * len(calls))
    model[0].register_forward_hook(lambda module, inputs, output: calls.append(1))
    check_followed(model)
    model[1].register_forward_hook(lambda module, inputs, output: output * len(calls))
    with pytest.raises(ConfigError, match=r"attribute: 1\._forward_hooks, state: \[0\]\), which a cut model would"):
        check_followed(model)


class Scaled(SGD):
    """Steps as far as a model's weights are long."""

    def __init__(self, parameters: list[nn.Parameter], model: nn.Module) -> None:
        super().__init__(parameters, lr=0.1)
        self.scale = {"model": model}


def averaging(model: nn.Module, make_one: Callable[..., Optimizer] = SGD) -> Callable[..., Optimizer]:
    average = AveragedModel(model)

    def make(named_parameters: list[tuple[str, nn.Parameter]]) -> Optimizer:
        optimizer = make_one(named_parameters)
        optimizer.register_step_post_hook(lambda *_: average.update_parameters(model))
        return optimizer

    return make


@pytest.mark.parametrize("method", [{"method": "sgd"}, {"method": "hardsync", "learners": 1}])
@pytest.mark.parametrize("kind", ["kept", "hook", "kept by one of several", "hook of several", "sorted"])
def test_an_optimizer_that_keeps_the_model_is_refused(kind: str, method: dict[str, Any]) -> None:
    model = nn.Linear(6, 3)
    makers: dict[str, Callable[..., Optimizer]] = {
        "kept": lambda ps: Scaled(ps, model),
        "hook": averaging(model),
        "kept by one of several": by_name({"weight": SGD}, rest=partial(Scaled, model=model)),
        "hook of several": averaging(model, by_name({"weight": SGD}, rest=SGD)),
        "sorted": lambda ps: SGD([{"params": [p], "lr": 0.1 if model.weight is p else 0.2} for p in ps]),
    }
    refused = "treats a parameter otherwise" if kind == "sorted" else r"the optimizer reads the model \(reads: Linear"
    data = TensorDataset(torch.ones(8, 6), torch.zeros(8, 3))
    with pytest.raises(ConfigError, match=refused):
        cases.train(model, data, loss=plain, optimizer=makers[kind], batch_size=4, updates=1, quiet=True, **method)
