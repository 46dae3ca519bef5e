"""What copies of models and functions keep."""

import pickle
import threading
import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import cloudpickle
import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer

from stalegrid.copies import attach, cast, check_hooks, check_memory, copied, hooks_of, renewed
from stalegrid.errors import ConfigError
from tests.cases import make_task

torch.set_num_threads(1)


def halved(gradient: Tensor) -> Tensor:
    return gradient / 2


def nulled(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.zero_()


def marked() -> nn.Sequential:
    """Return a model whose first weight is marked, tied to the last, and hooked twice."""
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    model[0].weight.no_decay = True
    model[0].weight.register_hook(halved)
    model[2].bias.register_post_accumulate_grad_hook(nulled)
    return model


def gradients(model: nn.Module) -> list[Tensor]:
    model.zero_grad()
    model(torch.ones(2, 3)).sum().backward()
    return [p.grad.clone() for p in model.parameters() if p.grad is not None]


def through_a_task(model: nn.Module) -> nn.Module:
    task = pickle.loads(cloudpickle.dumps(make_task(model=model)))
    made: nn.Module = task.model
    return made


@pytest.mark.parametrize("copy", [copied, lambda m: copied(copied(m)), through_a_task])
def test_marks_ties_and_hooks_are_kept_once(copy: Callable[[nn.Module], nn.Module]) -> None:
    model = marked()
    own = copy(model)
    assert isinstance(own, nn.Sequential)
    assert own[0].weight is own[2].weight
    assert own[0].weight is not model[0].weight
    assert [getattr(p, "no_decay", False) for p in own.parameters()] == [True, False, False]
    assert all(torch.equal(a, b) for a, b in zip(gradients(own), gradients(model), strict=True))
    assert not own[2].bias.grad.any()


def test_hooks_can_be_put_on_another_copy() -> None:
    hooks = hooks_of(marked())
    plain = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    attach(plain, hooks)
    assert hooks_of(plain) == hooks == {"0.weight": ([halved], []), "2.bias": ([], [nulled])}


def test_a_copy_is_equal_and_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    made = copied(model)
    pairs = list(zip(model.state_dict().values(), made.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


def test_a_result_that_is_kept_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model[0].last = model[0](torch.ones(1, 2))
    with pytest.raises(ConfigError, match=r"result of a computation.*\(attribute: 0\.last\); detach it"):
        copied(model)
    model[0].last = model[0].last.detach()
    assert torch.equal(copied(model)[0].last, model[0].last)


def test_the_remedy_for_the_old_weight_norm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(2, 3))
    with pytest.raises(ConfigError, match=r"attribute: weight.*torch\.nn\.utils\.parametrizations"):
        copied(old)
    copied(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))


def test_whatever_else_cannot_be_copied_is_said() -> None:
    model = nn.Linear(2, 3)
    model.lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be copied \(model: Linear\): cannot pickle '_thread.lock'"):
        copied(model)


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


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, None])
def test_a_cast_leaves_complex_and_whole_numbers_alone(dtype: torch.dtype | None) -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Module())
    model[1].register_buffer("turns", torch.polar(torch.ones(2), torch.ones(2)))
    model[1].register_buffer("shared", model[0].running_mean)
    turns = model[1].turns.clone()
    made = cast(model, dtype)
    assert made is model
    assert {p.dtype for p in model.parameters()} == {dtype or torch.float32}
    assert model[0].running_var.dtype == (dtype or torch.float32)
    assert model[0].num_batches_tracked.dtype == torch.int64
    assert torch.equal(model[1].turns, turns)
    assert model[1].turns.dtype == torch.complex64
    assert model[1].shared is model[0].running_mean


class Counting:
    """Counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, *_: Any) -> int:
        self.calls += 1
        return self.calls


class Weighted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, *_: Any) -> int:
        self.calls += 1
        return int(self.calls)


def closure() -> Callable[..., int]:
    calls = [0]

    def count(*_: Any) -> int:
        calls[0] += 1
        return calls[0]

    return count


def nested() -> Callable[..., int]:
    inner = closure()
    return lambda *arguments: inner(*arguments)


@pytest.mark.parametrize("make", [Counting, Weighted, closure, nested, lambda: partial(closure(), 1)])
def test_a_renewed_function_has_a_state_of_its_own(make: Callable[[], Callable[..., int]]) -> None:
    function = make()
    assert function() == 1
    own = renewed(function)
    assert [own(), own(), own()] == [2, 3, 4]
    assert function() == 2


def test_functions_that_share_a_state_go_on_sharing_it() -> None:
    calls = [0]

    def one() -> None:
        calls[0] += 1

    def other() -> int:
        return calls[0]

    tick, look = renewed((one, other))
    tick()
    assert (look(), other()) == (1, 0)


def test_a_function_may_name_itself_and_what_is_not_bound_yet() -> None:
    def fall(n: int) -> int:
        return fall(n - 1) if n else later

    own = renewed(fall)
    later = 7
    assert fall(3) == 7
    with pytest.raises(NameError):  # the copy was made before
        own(3)


def test_what_is_shared_or_cannot_be_copied_stays() -> None:
    data, model = [1, 2], nn.Linear(1, 1)
    lock = torch.Generator()
    held = iter([1])
    own = renewed(lambda: (data, model, held, lock), (data, model))
    assert own()[0] is data
    assert own()[1] is model
    assert own()[2] is not None


def test_a_tasks_functions_are_fresh_and_its_model_and_data_are_not() -> None:
    made = closure()

    def optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        return SGD(parameters, lr=float(made()))

    task = make_task(optimizer=optimizer)
    first, second = task.fresh(), task.fresh()
    rates = [t.optimizer([nn.Parameter(torch.zeros(1))]).defaults["lr"] for t in (first, second, first)]
    assert rates == [1.0, 1.0, 2.0]
    assert first.model is task.model
    assert first.data is task.data


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
