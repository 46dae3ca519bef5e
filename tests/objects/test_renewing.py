"""What a copy of a function has for itself, and what it shares."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import SGD, Optimizer

from stalegrid.objects.renewing import renewed
from tests.cases import make_task


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


def defaulted() -> Callable[..., int]:
    def count(*_: Any, calls: list[int] = [0]) -> int:  # noqa: B006 - the fault that people make
        calls[0] += 1
        return calls[0]

    return count


def nested() -> Callable[..., int]:
    inner = closure()
    return lambda *arguments: inner(*arguments)


@pytest.mark.parametrize("make", [Counting, Weighted, closure, defaulted, nested, lambda: partial(closure(), 1)])
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
