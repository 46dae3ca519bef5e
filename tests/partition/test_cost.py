import copy
from typing import Any

import pytest
import torch
from torch import Tensor, fx, nn

from stalegrid.errors import ConfigError
from stalegrid.partition import cost
from stalegrid.partition.chain import Chain
from stalegrid.partition.trace import trace
from stalegrid.partition.trial import run


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, bool]]:
    """Return which operations are run, and whether the gradient of what they are given is asked for."""
    found: list[tuple[str, bool]] = []
    call = cost._call

    def noting(chain: Chain, node: fx.Node, args: Any, kwargs: Any) -> Any:
        found.append((node.name, any(isinstance(a, Tensor) and a.requires_grad for a in args)))
        return call(chain, node, args, kwargs)

    monkeypatch.setattr(cost, "_call", noting)
    return found


def test_operations_are_measured_in_rounds_and_nobody_asks_for_the_gradient_of_the_data(
    seen: list[tuple[str, bool]],
) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).train()
    chain = trace(copy.deepcopy(model), (torch.randn(5, 3),))
    costs = cost.measure(chain, run(chain, (torch.randn(5, 3),)))
    assert len(costs) == len(chain.nodes)
    assert all(seconds > 0 for seconds in costs)
    names = [node.name for node in chain.nodes]
    assert [name for name, _ in seen] == names * cost.REPEATS
    assert [asked for _, asked in seen] == [False, True, True] * cost.REPEATS


def test_only_the_forward_counts_where_nothing_before_is_trained(seen: list[tuple[str, bool]]) -> None:
    class Backwards(torch.autograd.Function):
        calls = 0

        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            Backwards.calls += 1
            return g

    class Counted(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return Backwards.apply(x)  # type: ignore[no-any-return]

    frozen, trained = nn.Linear(3, 4).requires_grad_(False), nn.Linear(4, 2)
    for model, calls in (
        (nn.Sequential(frozen, Counted(), trained), 0),
        (nn.Sequential(nn.Linear(3, 4), Counted()), 5),
    ):
        chain = trace(copy.deepcopy(model).train(), (torch.randn(5, 3),))
        trial = run(chain, (torch.randn(5, 3),))
        Backwards.calls = 0
        cost.measure(chain, trial)
        assert Backwards.calls == calls
    assert [asked for _, asked in seen[:3]] == [False, False, False]


def test_the_least_of_the_rounds_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2)).train()
    chain = trace(copy.deepcopy(model), (torch.randn(5, 3),))
    taken = iter([5.0, 1.0, 2.0, 7.0] + [9.0] * 2 * cost.REPEATS)
    monkeypatch.setattr(cost, "_timed", lambda work, involved: next(taken))
    assert cost.measure(chain, run(chain, (torch.randn(5, 3),))) == [2.0, 1.0]


class Outputs:
    """What a library returns instead of a tensor."""

    def __init__(self, hidden: Tensor) -> None:
        self.hidden = hidden


class Wrapping(nn.Module):
    """Kept whole, since it cannot be traced."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Outputs:
        return Outputs(self.fc(x) if x.sum() > -1000 else x)


def test_objects_that_hold_a_graph_are_measured_no_further_than_their_operation() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer = Wrapping(), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(self.inner(x).hidden * 2)

    chain = trace(Net().train(), (torch.randn(5, 3),))
    assert [node.op for node in chain.nodes] == ["call_module", "call_function", "call_function", "call_module"]
    assert len(cost.measure(chain, run(chain, (torch.randn(5, 3),)))) == 4


@pytest.mark.parametrize(
    ("hook", "said"),
    [(lambda p: p.grad.zero_(), "should return None"), (lambda p: torch.zeros(2) @ torch.zeros(3), "inconsistent")],
)
def test_a_backward_that_fails_is_told_of_with_its_operation(hook: Any, said: str) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).train()
    model[2].weight.register_post_accumulate_grad_hook(hook)
    chain = trace(model, (torch.randn(5, 3),))
    with pytest.raises(ConfigError, match=rf"a backward of the model fails \(operation: _2\): .*{said}"):
        cost.measure(chain, run(chain, (torch.randn(5, 3),)))
