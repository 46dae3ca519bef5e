"""What is asked for now holds, and what training has changed moves."""

from functools import partial
from typing import Any

import pytest
import torch
from torch import nn
from torch.optim import Optimizer

from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.moved import move, options_of
from stalegrid.stages.optimizers.named import NamedState, load_named, named_state

Named = list[tuple[str, nn.Parameter]]


def parameters(*names: str) -> Named:
    return [(name, nn.Parameter(torch.ones(2))) for name in names]


def trained(make: Any, named: Named, steps: int = 2) -> Optimizer:
    optimizer: Optimizer = make([p for _, p in named])
    for _ in range(steps):
        for n, (_, p) in enumerate(named):
            p.grad = torch.full_like(p, n + 1.0)
        optimizer.step()
    return optimizer


def state_of(make: Any, *names: str) -> NamedState:
    named = parameters(*names)
    return named_state(trained(make, named), None, named)


class Counting(torch.optim.SGD):
    """Keeps among its options what it learns."""

    def __init__(self, parameters: Any, lr: float) -> None:
        super().__init__(parameters, lr)
        for group in self.param_groups:
            group.setdefault("scale", 1.0)
        self.defaults["scale"] = 1.0

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        super().step(closure)
        for group in self.param_groups:
            group["scale"] *= 2


def test_any_part_of_the_parameters_in_any_order_finds_its_state() -> None:
    state = state_of(partial(torch.optim.SGD, lr=0.1, momentum=0.5), "a", "b", "c")
    named = parameters("c", "a")
    own = torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.5)
    move(own, named, state, 2, lambda optimizer: None)
    assert own.state[named[0][1]]["momentum_buffer"].tolist() == [4.5, 4.5]
    assert own.state[named[1][1]]["momentum_buffer"].tolist() == [1.5, 1.5]
    own.state[named[1][1]]["momentum_buffer"].zero_()
    assert state.state["a"]["momentum_buffer"].tolist() == [1.5, 1.5]  # which others take too


def test_a_rate_that_is_asked_for_holds_and_what_was_learnt_moves() -> None:
    state = state_of(partial(Counting, lr=0.1), "a")
    named = parameters("a")
    own = Counting([p for _, p in named], lr=0.3)
    move(own, named, state, 2, lambda optimizer: None)
    assert (own.param_groups[0]["lr"], own.param_groups[0]["scale"]) == (0.3, 4.0)


def test_a_schedule_is_where_it_would_be_with_all_that_it_rules() -> None:
    def cycle(optimizer: Optimizer) -> Any:
        return torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.5, total_steps=9)

    state = state_of(partial(torch.optim.SGD, lr=0.1, momentum=0.5), "a")
    named = parameters("a")
    own, plain = (torch.optim.SGD([p for _, p in named], lr=0.1, momentum=0.5) for _ in range(2))
    made, schedule = move(own, named, state, 4, cycle), cycle(plain)
    for _ in range(4):
        plain.step()
        schedule.step()
    assert options_of(own) == options_of(plain)
    assert made is not None
    assert made.state_dict().keys() == schedule.state_dict().keys()
    assert made.last_epoch == 4


def test_a_group_has_the_options_of_its_parameters() -> None:
    def parted(named: Named) -> Optimizer:
        decayed, others = ([p for n, p in named if n.startswith("a") == first] for first in (True, False))
        groups = [{"params": decayed, "weight_decay": 0.5}, {"params": others}]
        return torch.optim.SGD([group for group in groups if group["params"]], lr=0.1)

    named = parameters("a1", "b1", "a2")
    state = named_state(parted(named), None, named)
    own = parameters("b1")
    optimizer = parted(own)
    load_named(optimizer, own, state)
    assert optimizer.param_groups[0]["weight_decay"] == 0
    with pytest.raises(ConfigError, match=r"had other options are in one group now \(group: 0, parameters: a1, b1\)"):
        load_named(torch.optim.SGD([p for _, p in named], lr=0.1), named, state)


def test_a_parameter_that_the_state_lacks_is_named() -> None:
    named = parameters("a", "z")
    with pytest.raises(ConfigError, match=r"lacks a parameter \(name: z\)"):
        load_named(torch.optim.SGD([p for _, p in named], lr=0.1), named, state_of(partial(torch.optim.SGD, lr=1), "a"))
    with pytest.raises(ConfigError, match=r"of another optimizer \(of: Counting, asked for: SGD\)"):
        load_named(torch.optim.SGD([p for _, p in named], lr=0.1), named, state_of(partial(Counting, lr=1), "a"))


def test_single_numbers_stay_on_the_cpu() -> None:
    state = state_of(partial(torch.optim.Adam, lr=0.1), "a")
    elsewhere = nn.Parameter(torch.ones(2, device="meta"))
    own = torch.optim.Adam([elsewhere], lr=0.1)
    load_named(own, [("a", elsewhere)], state)
    assert own.state[elsewhere]["step"].item() == 2
    assert {name: value.device.type for name, value in own.state[elsewhere].items()} == {
        "step": "cpu",
        "exp_avg": "meta",
        "exp_avg_sq": "meta",
    }


def test_it_is_a_tree_of_plain_values_and_back() -> None:
    state = state_of(partial(torch.optim.Adam, lr=0.1), "a", "b")
    assert NamedState.of(state.plain()) == state
