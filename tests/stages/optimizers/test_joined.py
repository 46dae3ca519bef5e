"""Several optimizers that act as one have one state and one list of groups."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, AdamW, Optimizer
from torch.optim import lr_scheduler as schedules

from stalegrid.agents.pipeline import scaled
from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.joined import Joined, kinds_of, parts_of

torch.set_num_threads(1)


def parts(model: nn.Module) -> list[Optimizer]:
    (a, b), (c, d) = (list(layer.parameters()) for layer in (model[0], model[1]))  # type: ignore[index]
    one = SGD([{"params": [a], "lr": 0.2}, {"params": [b]}], lr=0.1, momentum=0.9)
    return [one, AdamW([c], lr=0.01), Adagrad([d], lr=0.05)]


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))


def backward(net: nn.Module, n: int) -> None:
    net.zero_grad()
    net(torch.randn(5, 3, generator=torch.Generator().manual_seed(n))).square().sum().backward()


def values(net: nn.Module) -> list[Tensor]:
    return [p.detach().clone() for p in net.parameters()]


def expected(updates: int, change: Callable[[list[Optimizer], int], Any] = lambda own, n: None) -> list[Tensor]:
    """Step the parts one after the other."""
    net = model()
    own = parts(net)
    for n in range(updates):
        backward(net, n)
        change(own, n)
        for each in own:
            each.step()
    return values(net)


def equal(one: list[Tensor], other: list[Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_it_steps_each_and_reads_as_one() -> None:
    net = model()
    joined = Joined(parts(net))
    for n in range(3):
        backward(net, n)
        joined.step()
    assert equal(values(net), expected(3))
    assert [group["lr"] for group in joined.param_groups] == [0.2, 0.1, 0.01, 0.05]
    assert set(joined.state) == set(net.parameters())
    assert kinds_of(joined) == "SGD and AdamW and Adagrad"
    joined.zero_grad()
    assert all(p.grad is None for p in net.parameters())


def test_a_rate_that_is_changed_in_the_whole_is_changed_in_the_part() -> None:
    net = model()
    joined = Joined(parts(net))
    backward(net, 0)
    with scaled(joined, 0.5):
        joined.step()

    def halved(own: list[Optimizer], n: int) -> None:
        for group in (group for each in own for group in each.param_groups):
            group["lr"] *= 0.5

    assert equal(values(net), expected(1, halved))
    assert not equal(values(net), expected(1))


def test_a_schedule_of_the_whole_schedules_the_parts() -> None:
    net = model()
    joined = Joined(parts(net))
    rate = schedules.ExponentialLR(joined, 0.5)
    for n in range(3):
        backward(net, n)
        joined.step()
        rate.step()
    own = parts(model())
    rates = [schedules.ExponentialLR(each, 0.5) for each in own]

    def scheduled(stepped: list[Optimizer], n: int) -> None:
        for group, rated in zip(
            (g for each in stepped for g in each.param_groups),
            (g for each in own for g in each.param_groups),
            strict=True,
        ):
            group["lr"] = rated["lr"]
        for each, one in zip(own, rates, strict=True):
            each.step()
            one.step()

    assert equal(values(net), expected(3, scheduled))


def test_a_state_that_is_changed_in_the_whole_is_changed_in_the_part() -> None:
    p, q = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    joined = Joined([SGD([p], lr=0.25, momentum=0.5), SGD([q], lr=1.0)])
    joined.state[p] = {"momentum_buffer": torch.full((1,), 8.0)}
    p.grad = torch.zeros(1)
    joined.step()
    assert p.item() == 0.0
    assert joined.parts[0].state[p]["momentum_buffer"].item() == 4.0


@pytest.mark.parametrize("way", ["state dict", "deep copy", "pickle"])
def test_it_goes_on_from_where_it_was(way: str) -> None:
    net = model()
    joined = Joined(parts(net))
    for n in range(2):
        backward(net, n)
        joined.step()
    if way == "state dict":
        again = model()
        again.load_state_dict(net.state_dict())
        other = Joined(parts(again))
        other.load_state_dict(copy.deepcopy(joined.state_dict()))
    else:
        again, other = copy.deepcopy((net, joined)) if way == "deep copy" else pickle.loads(pickle.dumps((net, joined)))
    for part in other.parts:
        assert part.state is other.state
        assert all(any(group is own for own in other.param_groups) for group in part.param_groups)
    before = values(net)
    backward(again, 2)
    other.param_groups[0]["lr"] = 0.2
    other.step()
    assert equal(values(again), expected(3))
    assert equal(values(net), before)


def test_a_part_without_parameters_keeps_its_groups_and_makes_no_step() -> None:
    class Fussy(SGD):
        def step(self, closure: Any = None) -> Any:
            raise AssertionError("it has nothing to step")

    p = nn.Parameter(torch.ones(1))
    joined = Joined([Fussy([{"params": []}], lr=0.5), SGD([p], lr=0.25)])
    p.grad = torch.ones(1)
    joined.step()
    assert p.item() == 0.75
    assert [group["lr"] for group in joined.param_groups] == [0.5, 0.25]


def test_a_closure_is_called_once() -> None:
    net, called = model(), []

    def closure() -> float:
        backward(net, len(called))
        called.append(torch.is_grad_enabled())
        return 3.0

    joined = Joined(parts(net))
    with torch.no_grad():
        assert joined.step(closure) == 3.0
    assert called == [True]
    assert equal(values(net), expected(1))


def test_what_all_have_is_what_the_whole_has() -> None:
    one, two = model(), model()
    momentum = Joined([SGD(one.parameters(), lr=0.1, momentum=0.9), SGD(two.parameters(), lr=0.2, momentum=0.5)])
    schedules.OneCycleLR(momentum, 0.1, total_steps=5)
    assert momentum.param_groups[1]["momentum"] == 0.95
    with pytest.raises(ValueError, match="must support momentum"):
        schedules.OneCycleLR(Joined(parts(model())), 0.1, total_steps=5)


def test_further_parameters_are_refused() -> None:
    joined = Joined(parts(model()))
    with pytest.raises(ConfigError, match="no further parameters"):
        joined.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    assert len(joined.param_groups) == 4


def test_one_parameter_of_two_is_refused() -> None:
    p = nn.Parameter(torch.ones(1))
    with pytest.raises(ValueError, match="more than one parameter group"):
        Joined([SGD([p], lr=0.1), SGD([p], lr=0.1)])


def test_what_is_joined_twice_has_the_parts_of_all() -> None:
    one, two = model(), model()
    inner = Joined(parts(one))
    outer = Joined([inner, SGD(two.parameters(), lr=0.1)])
    assert [type(part) for part in parts_of(outer)] == [SGD, AdamW, Adagrad, SGD]
    assert parts_of(outer.parts[0]) == (outer.parts[0],)
