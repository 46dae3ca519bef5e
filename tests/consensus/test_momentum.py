from collections.abc import Callable
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Adagrad, Adam, AdamW, NAdam, Optimizer, RMSprop

from stalegrid.consensus.momentum import Momentum
from stalegrid.errors import ConfigError
from stalegrid.stages.optimizers.joined import Joined
from stalegrid.stages.weights import Weights

torch.set_num_threads(1)

Factory = Callable[[list[nn.Parameter]], Optimizer]
WITH_MOMENTUM: list[Factory] = [
    partial(SGD, lr=0.1, momentum=0.9),
    partial(SGD, lr=0.1, momentum=0.9, nesterov=True),
    partial(RMSprop, lr=0.1, momentum=0.5),
    partial(Adam, lr=0.1),
    partial(AdamW, lr=0.1, amsgrad=True),
    partial(NAdam, lr=0.1),
]
with_momentum = pytest.mark.parametrize("factory", WITH_MOMENTUM, ids=lambda f: f.func.__name__)


def trained(factory: Factory, steps: int) -> tuple[list[nn.Parameter], Optimizer, Momentum]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 3, 2), nn.Flatten(), nn.Linear(12, 2)).to(memory_format=torch.channels_last)
    weights = Weights(model)
    parameters = weights.trainable()
    optimizer = factory(parameters)
    for _ in range(steps):
        weights.zero_grad()
        model(torch.randn(4, 2, 3, 3)).square().sum().backward()
        optimizer.step()
    return parameters, optimizer, Momentum(optimizer, parameters)


def buffers(optimizer: Optimizer, parameters: list[nn.Parameter]) -> list[Tensor]:
    return [
        next(optimizer.state[p][n] for n in ("momentum_buffer", "exp_avg") if n in optimizer.state[p])
        for p in parameters
    ]


@with_momentum
def test_reading_gives_all_buffers_in_the_order_of_the_parameters(factory: Factory) -> None:
    parameters, optimizer, momentum = trained(factory, 2)
    vector = momentum.read()
    assert vector.shape == (sum(p.numel() for p in parameters),)
    assert vector.count_nonzero() > 0
    parts = torch.split(vector, [p.numel() for p in parameters])
    for part, p, buffer in zip(parts, parameters, buffers(optimizer, parameters), strict=True):
        assert torch.equal(part.view(p.shape), buffer)


@with_momentum
def test_reading_copies(factory: Factory) -> None:
    _, _, momentum = trained(factory, 1)
    momentum.read().zero_()
    assert momentum.read().count_nonzero() > 0


@with_momentum
def test_adding_changes_every_element_by_its_own_amount(factory: Factory) -> None:
    parameters, optimizer, momentum = trained(factory, 1)
    before = momentum.read()
    delta = torch.arange(float(len(before)))
    same = buffers(optimizer, parameters)
    momentum.add(delta)
    assert torch.equal(momentum.read(), before + delta)
    assert all(a is b for a, b in zip(buffers(optimizer, parameters), same, strict=True))


@with_momentum
def test_the_next_step_uses_what_was_added(factory: Factory) -> None:
    def step(amount: float) -> list[Tensor]:
        parameters, optimizer, momentum = trained(factory, 1)
        momentum.add(torch.full_like(momentum.read(), amount))
        optimizer.step()
        return [p.detach().clone() for p in parameters]

    assert all(torch.equal(a, b) for a, b in zip(step(0.0), step(0.0), strict=True))
    assert all((a != b).any() for a, b in zip(step(0.0), step(1.0), strict=True))


@with_momentum
def test_before_the_first_step_momentum_is_zero(factory: Factory) -> None:
    parameters, _, momentum = trained(factory, 0)
    assert torch.equal(momentum.read(), torch.zeros(sum(p.numel() for p in parameters)))
    assert not momentum.read().requires_grad


def test_a_parameter_that_never_had_a_gradient_has_zero_momentum() -> None:
    used, unused = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(3))
    optimizer = SGD([used, unused], lr=0.1, momentum=0.9)
    used.grad = torch.ones(2)
    optimizer.step()
    assert torch.equal(Momentum(optimizer, [used, unused]).read(), torch.tensor([1.0, 1.0, 0.0, 0.0, 0.0]))


@pytest.mark.parametrize("factory", [partial(SGD, lr=0.1), partial(RMSprop, lr=0.1), partial(Adagrad, lr=0.1)])
def test_an_optimizer_without_momentum_is_refused(factory: Factory) -> None:
    with pytest.raises(ConfigError, match=rf"no momentum to mix \(optimizer: {factory.func.__name__}"):
        trained(factory, 0)


@with_momentum
def test_where_there_is_no_buffer_yet_one_receives(factory: Factory) -> None:
    """A group that has not used a parameter yet receives its neighbours' momentum like any other."""

    def pushed(amount: float | None) -> tuple[Tensor, Tensor]:
        p = nn.Parameter(torch.ones(2))
        optimizer = factory([p])
        momentum = Momentum(optimizer, [p])
        if amount is not None:
            momentum.add(torch.full((2,), amount))
        held = momentum.read()
        p.grad = torch.tensor([0.5, -1.0])
        optimizer.step()
        return held, p.detach()

    plain, moved = pushed(None), pushed(0.25)
    assert plain[0].tolist() == [0.0, 0.0]
    assert moved[0].tolist() == [0.25, 0.25]
    assert not torch.equal(moved[1], plain[1])
    p = nn.Parameter(torch.ones(2))
    optimizer = factory([p])
    Momentum(optimizer, [p]).add(torch.zeros(2))
    assert not optimizer.state, "nothing is made of nothing"


@with_momentum
def test_a_buffer_that_is_made_is_that_of_a_parameter_without_steps(factory: Factory) -> None:
    """Up to what was added: with next to nothing in it, training goes on as from no state at all."""
    steps = []
    for add in (False, True):
        p = nn.Parameter(torch.ones(2))
        optimizer = factory([p])
        if add:
            Momentum(optimizer, [p]).add(torch.full((2,), 1e-30))
        for n in range(3):
            p.grad = torch.tensor([0.5 + n, -1.0])
            optimizer.step()
        steps.append(p.detach())
    assert torch.equal(*steps)


def test_of_several_optimizers_the_one_that_has_a_parameter_makes_its_state() -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    joined = Joined([SGD([p], lr=0.5, momentum=0.5), Adam([q], lr=0.5)])
    p.grad = q.grad = torch.ones(2)
    momentum = Momentum(joined, [p, q])
    momentum.add(torch.tensor([1.0, 2.0, 3.0, 4.0]))
    assert torch.equal(p, torch.ones(2)), "nothing is stepped"
    assert torch.equal(q, torch.ones(2))
    assert torch.equal(joined.parts[0].state[p]["momentum_buffer"], torch.tensor([1.0, 2.0]))
    assert torch.equal(joined.parts[1].state[q]["exp_avg"], torch.tensor([3.0, 4.0]))
    assert torch.equal(momentum.read(), torch.tensor([1.0, 2.0, 3.0, 4.0]))


def test_one_of_several_without_momentum_is_refused() -> None:
    p, q = nn.Parameter(torch.ones(2)), nn.Parameter(torch.ones(2))
    with pytest.raises(ConfigError, match=r"optimizer: Adagrad without momentum"):
        Momentum(Joined([Adam([p]), Adagrad([q])]), [p, q])
