"""Mirrors: what they show at a forward and at its backward, what they hold, and what they take out."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import TrainingError
from stalegrid.stages.mirrors import Mirrors
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.named import View
from stalegrid.stages.weights import Versions, Weights
from tests.cases import Kept
from tests.sites import linear, make_site, noise


def mirrors(module: nn.Module) -> Mirrors:
    return Mirrors({"weight": module.weight})  # type: ignore[dict-item]


def stage_of(module: nn.Module, kind: type[Stage] = Stage, mirrored: tuple[str, ...] = ()) -> Stage:
    weights = Weights(module, mirrored=mirrored)
    site = replace(make_site(linear()), weights=weights, versions=Versions(weights))
    return kind(module, weights, View(site), False)


def test_a_batch_in_flight_keeps_what_it_was_forwarded_at() -> None:
    module = linear()
    found, first, second = mirrors(module), module.weight.detach().clone(), noise(2, 3)
    found.forwarding(0)
    found.renew("weight", second, 3)
    found.forwarding(1)
    assert torch.equal(module.weight, second)
    with found.showing(0):
        assert torch.equal(module.weight, first)
    assert torch.equal(module.weight, second)
    assert [found.version(batch, "weight") for batch in (0, 1)] == [0, 3]
    assert found.nbytes == 24, "the first version; the newest is shown"
    found.finished(0)
    assert found.nbytes == 0


def test_a_gradient_is_taken_out_and_the_parameter_stays_the_object_it_is() -> None:
    module = linear()
    weight, found = module.weight, mirrors(module)
    found.forwarding(0)
    found.renew("weight", noise(2, 3), 1)
    found.forwarding(1)
    assert module.weight is weight
    module(noise(4, 3)).sum().backward()
    made = weight.grad
    found.finished(1)
    assert found.used["weight"].gradient is made
    assert found.used["weight"].version == 1
    assert weight.grad is None
    found.finished(0)
    assert found.used["weight"].gradient is None
    assert found.used["weight"].version == 0


def test_hooks_belong_to_the_owner() -> None:
    module = linear()
    calls: list[str] = []
    module.weight.register_hook(lambda g: calls.append("before"))
    module.weight.register_post_accumulate_grad_hook(lambda p: calls.append("after"))
    module.bias.register_hook(lambda g: calls.append("own"))
    mirrors(module)
    module(noise(4, 3)).sum().backward()
    assert calls == ["own"]


@pytest.mark.parametrize("kind", [Stage, RecomputingStage])
def test_a_late_backward_has_the_mirror_of_its_forward(kind: type[Stage]) -> None:
    """Whatever the view of the stage's own weights, and though both were changed since."""
    module = linear()
    stage = stage_of(module, kind, ("weight",))
    then, x = module.weight.detach().clone(), noise(4, 3)
    (made,), _ = stage.forward(0, (x,))
    stage.mirrors.renew("weight", noise(2, 3, key=5), 1)
    stage.recompute(0)
    (gradient,) = stage.backward(0, (torch.ones_like(made),))
    assert torch.equal(gradient, torch.ones(4, 2) @ then)
    assert torch.equal(stage.mirrors.used["weight"].gradient, torch.ones(2, 4) @ x)
    assert torch.equal(module.weight, noise(2, 3, key=5))


def test_what_reads_a_mirror_in_the_backward_itself_finds_that_of_the_forward() -> None:
    module = Kept(2)
    stage, then, given = stage_of(module, mirrored=("w",)), module.w.detach().clone(), noise(4, 2)
    stage.forward(0, (noise(4, 2, key=1),))
    stage.mirrors.renew("w", noise(2, key=5), 1)
    (gradient,) = stage.backward(0, (given,))
    assert torch.equal(gradient, given * then)


def test_gradients_of_later_uses_come_first_in_the_sum() -> None:
    """In single precision 1e8 + 1 - 1e8 depends on the order."""
    module = nn.Linear(1, 1, bias=False)

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = module

        def forward(self, x: Tensor) -> Tensor:
            return torch.cat([self.fc(x), self.fc(torch.full_like(x, -1e8))])

    stage = stage_of(Twice())
    stage.forward(0, (torch.ones(1, 1),))
    stage.backward(0, (torch.ones(2, 1),), {"fc.weight": torch.full((1, 1), 1e8)})
    # (1e8 + (-1e8)) + 1, since the second use comes before the first.
    assert float(module.weight.grad) == 1.0


def test_mirrors_are_no_part_of_the_vector() -> None:
    module = linear()
    weights = Weights(module, mirrored=["weight"])
    assert [entry.name for entry in weights.entries] == ["bias"]
    assert weights.trainable() == [module.bias]
    assert list(weights.mirrored) == ["weight"]
    weights.check()
    Mirrors(weights.mirrored).renew("weight", noise(2, 3), 1)
    weights.check()
    with torch.no_grad():
        module.weight.mul_(2)
    with pytest.raises(TrainingError, match=r"changes a tensor that it left alone at the start \(name: weight\)"):
        weights.check()
