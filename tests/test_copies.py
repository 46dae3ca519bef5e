"""What copies of models and functions keep."""

import pickle
import threading
import warnings
from collections.abc import Callable

import cloudpickle
import pytest
import torch
from torch import Tensor, nn

from stalegrid.copies import attach, cast, copied, hooks_of
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
