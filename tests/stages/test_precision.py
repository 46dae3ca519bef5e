from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.programs.schedules import stale
from stalegrid.stages.precision import Precision
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.base import View
from stalegrid.stages.views.named import VIEWS
from stalegrid.stages.views.stashed import Stashed
from tests.sites import linear, make_site, noise, step

CPU = torch.device("cpu")
BF16 = torch.bfloat16
ANEW = Precision(BF16, anew=True)


def stage_of(module: nn.Module, view: str, precision: Precision = ANEW) -> Stage:
    site = make_site(module)
    return Stage(module, site.weights, VIEWS[view](site), first=False, precision=precision)


def trained(stage: Stage) -> list[nn.Parameter]:
    return stage.weights.trainable()


def late(stage: Stage) -> tuple[Tensor, Tensor, Tensor]:
    """Return the input of a batch, the gradient of its output and of its input, after an update in between."""
    x, g = noise(5, 3), noise(5, 2, key=1).to(BF16)
    stage.forward(0, (x,))
    step(stage.view.site, stage.view)
    stage.weights.zero_grad()
    (below,) = stage.backward(0, (g,))
    assert below is not None
    return x, g, below


def test_without_a_lower_type_nothing_is_cast() -> None:
    with Precision().on(CPU):
        assert not torch.is_autocast_enabled("cpu")


def test_a_weight_that_is_used_twice_has_its_gradients_added_in_its_own_type() -> None:
    module, x, other = linear(), noise(5, 3), noise(5, 3, key=1)
    with Precision(BF16).on(CPU):
        both = module(x), module(other)
    assert both[0].dtype == BF16
    g = torch.ones_like(both[0])
    apart = [torch.autograd.grad(y, module.weight, g, retain_graph=True)[0] for y in both]
    (together,) = torch.autograd.grad(both, module.weight, (g, g))
    assert torch.equal(together, apart[0] + apart[1])
    assert not torch.equal(together, (apart[0].to(BF16) + apart[1].to(BF16)).float())


@pytest.mark.parametrize("view", ["stashed", "current"])
@pytest.mark.parametrize("anew", [True, False])
def test_a_late_backward_reads_casts_of_what_the_view_shows(view: str, anew: bool) -> None:
    module = linear()
    then = module.weight.detach().clone()
    stage = stage_of(module, view, Precision(BF16, anew))
    x, g, below = late(stage)
    assert not torch.equal(then.to(BF16), module.weight.to(BF16))
    seen = module.weight.detach() if view == "current" and anew else then
    assert torch.equal(below, (g @ seen.to(BF16)).float())
    assert torch.equal(module.weight.grad, (x.to(BF16).t() @ g).t().float())


def test_a_graph_whose_casts_are_made_anew_holds_none() -> None:
    held = []
    for precision in (ANEW, Precision(BF16)):
        stage = stage_of(linear(), "current", precision)
        stage.forward(0, (noise(5, 3),))
        held.append(stage.nbytes)
    assert held[1] - held[0] == 2 * 6


class Scaled(nn.Module):
    """Casts its weight itself, and changes the copy or not."""

    def __init__(self, change: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(3, 2))
        self.change = change

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.t().to(BF16)
        if self.change:
            w.mul_(0.5)
        return x.to(BF16) @ w.t()


@pytest.mark.parametrize("change", [False, True])
def test_a_cast_of_the_model_s_own_is_one_unless_it_is_changed(change: bool) -> None:
    """What a model makes of its weights is an activation, which a late backward sees as it was."""
    module = Scaled(change)
    then = module.weight.detach().clone()
    _, g, below = late(stage_of(module, "current"))
    seen = (then.to(BF16) * 0.5) if change else module.weight.detach().to(BF16)
    assert torch.equal(below, (g @ seen.t()).float())


class Reused(nn.Module):
    """Drops casts, whose memory the next tensors then get."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(noise(64, 64))

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            self.weight.to(BF16)
        y = (x.to(BF16) * 2).sin()
        return y * y.exp()


def test_no_activation_is_taken_for_a_cast_that_is_gone() -> None:
    x, g = noise(64, 64, key=1), torch.ones(64, 64, dtype=BF16)
    leaf = x.clone().requires_grad_()
    Reused()(leaf).backward(g)
    stage = stage_of(Reused(), "current")
    stage.forward(0, (x,))
    stage.weights.flat[: stage.weights.trained] = 0.0
    (found,) = stage.backward(0, (g,))
    assert found is not None
    assert leaf.grad is not None
    assert torch.equal(found, leaf.grad)


def test_views_that_show_what_a_forward_has_cast_need_no_casts_anew() -> None:
    schedule = stale((2, 1, 0))
    needed = {name: [view.casts_anew(schedule, k) for k in range(3)] for name, view in VIEWS.items()}
    assert needed == {
        "stashed": [False] * 3,
        "double-buffered": [False] * 3,
        "recomputed": [False] * 3,
        "current": [True, True, False],
        "corrected": [True, True, False] if not VIEWS["corrected"].elsewhere else [True] * 3,
        "predicted": [True, True, False],
        "predicted-twice": [True] * 3,
    }


def test_a_view_of_one_s_own_is_not_exact_because_what_it_inherits_from_is() -> None:
    class Mean(Stashed):
        def seen(self, version: int) -> Tensor:
            return (super().seen(version)[: self.weights.trained] + self.parameters) / 2

    class Counting(Stashed):
        def finished(self, version: int) -> None:
            super().finished(version)

    class Same(Stashed):
        exact = True

        def seen(self, version: int) -> Tensor:
            return super().seen(version)

    assert [kind.exact for kind in (View, Mean, Counting, Same)] == [False, False, True, True]


def test_all_casts_are_forgotten_after_a_forward() -> None:
    stage = stage_of(linear(), "current")
    stage.forward(0, (noise(5, 3),))
    assert stage._casts is None


def test_a_forward_that_fails_leaves_nothing_watched() -> None:
    class Fails(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(noise(3))

        def forward(self, x: Tensor) -> Any:
            raise ValueError("no")

    stage = stage_of(Fails(), "current")
    with pytest.raises(ValueError, match="no"):
        stage.forward(0, (noise(5, 3),))
    assert stage._casts is None
    assert not torch.is_autocast_enabled("cpu")
