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

from stalegrid.errors import ConfigError
from stalegrid.objects.copies import attach, cast, copied, hooks_of, ordered
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


def test_parameters_of_images_are_laid_out_in_another_order_with_the_same_values() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv3d(2, 2, 3))
    kept, values = list(model.parameters()), [p.clone() for p in model.parameters()]
    assert ordered(model, torch.channels_last) is model
    expected = nn.Conv2d(3, 4, 3).to(memory_format=torch.channels_last).weight.stride()
    assert model[0].weight.stride() == expected
    assert all(one is other for one, other in zip(model.parameters(), kept, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(kept, values, strict=True))


class Halving:
    """A hook that halves more with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, gradient: Tensor) -> Tensor:
        self.calls += 1
        return gradient / 2**self.calls


def counting() -> Callable[..., Tensor]:
    calls = [0]

    def hook(*values: Any) -> Tensor:
        calls[0] += 1
        last = values[-1][0] if isinstance(values[-1], tuple) else values[-1]
        return last / 2 ** calls[0]  # type: ignore[no-any-return]

    return hook


class Kept(nn.Linear):
    def __init__(self, keep: Callable[[Callable[..., Tensor]], Any]) -> None:
        super().__init__(2, 2)
        self.kept = keep(counting())

    def forward(self, x: Tensor) -> Tensor:
        found = self.kept[0] if isinstance(self.kept, list) else self.kept
        made: Tensor = found(super().forward(x))
        return made


def with_state(kind: str) -> nn.Module:
    if kind in ("attribute", "list", "partial"):
        return Kept({"attribute": lambda f: f, "list": lambda f: [f], "partial": partial}[kind])
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    if kind == "gradient":
        model[1].weight.register_hook(counting())
    elif kind == "object":
        model[1].weight.register_hook(Halving())
    elif kind == "forward":
        model[1].register_forward_hook(counting())
    elif kind == "before":
        model[1].register_forward_pre_hook(counting())
    else:
        halve = counting()
        model[1].register_full_backward_hook(lambda module, inputs, outputs: (halve(inputs[0]),))
    return model


def outcome(model: nn.Module) -> list[Tensor]:
    x = torch.ones(2, 2, requires_grad=True)
    made = model(x)
    made.sum().backward()
    return [made.detach(), *(p.grad for p in model.parameters() if p.grad is not None)]


KINDS = ["attribute", "list", "partial", "gradient", "object", "forward", "before", "backward"]


@pytest.mark.parametrize("kind", KINDS)
def test_functions_of_a_copy_have_a_state_of_their_own(kind: str) -> None:
    torch.manual_seed(0)
    model = with_state(kind)
    first, second = copied(model), copied(copied(model))
    expected = outcome(model)
    for own in (first, second):
        assert all(torch.equal(a, b) for a, b in zip(outcome(own), expected, strict=True))
    model.zero_grad()
    again = outcome(model)
    assert not all(torch.equal(a, b) for a, b in zip(again, expected, strict=True))


def test_functions_of_a_copy_share_what_they_share() -> None:
    model, seen = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), list[int]()
    handle = model[0].register_forward_hook(lambda module, inputs, output: seen.append(1))
    model[1].register_forward_hook(lambda module, inputs, output: output * len(seen))
    own = copied(model)
    assert torch.equal(own(torch.ones(1, 2)), model(torch.ones(1, 2)))
    assert seen == [1]
    assert list(own[0]._forward_hooks) == list(model[0]._forward_hooks) == [handle.id]
