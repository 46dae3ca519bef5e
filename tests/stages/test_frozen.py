"""A stage below all that is trained."""

import gc
import weakref

import pytest
import torch
from torch import nn

from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import stale
from stalegrid.stages.frozen import FrozenStage
from stalegrid.stages.kinds import kind_of_stage
from stalegrid.stages.recomputing import RecomputingStage
from stalegrid.stages.site import Site
from stalegrid.stages.stage import Stage
from stalegrid.stages.views.named import VIEWS
from stalegrid.stages.weights import Versions, Weights
from tests.sites import linear, make_site, noise


def frozen(view: str = "stashed", module: nn.Module | None = None) -> FrozenStage:
    """Return a stage whose module trains nothing."""
    usual = make_site(linear(), staleness=(2, 0), micro_batches=2)  # a double buffer takes as many as it is ahead
    weights = Weights((linear() if module is None else module).requires_grad_(False))
    site = Site(usual.unit, usual.schedule, 8, weights, Versions(weights), usual.optimizer)
    return FrozenStage(weights.module, weights, VIEWS[view](site), first=True)


def test_it_computes_what_its_module_does() -> None:
    stage, x = frozen(), noise(4, 3)
    outputs, version = stage.forward(0, (x,))
    assert version == 0
    assert torch.equal(outputs[0], linear()(x))
    assert not outputs[0].requires_grad


def test_gradients_are_on_in_its_forward_as_in_a_plain_loop() -> None:
    class Asks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * torch.is_grad_enabled()

    (made,), _ = frozen(module=nn.Sequential(linear(), Asks())).forward(0, (torch.ones(2, 3),))
    assert torch.equal(made, linear()(torch.ones(2, 3)))


@pytest.mark.parametrize("view", VIEWS)
def test_it_holds_nothing_of_a_batch_and_gives_no_gradient(view: str) -> None:
    stage = frozen(view)
    for batch in range(3):
        x = noise(4, 3, key=batch)
        outputs, _ = stage.forward(batch, (x,))
        gone = [weakref.ref(x), weakref.ref(outputs[0])]
        gc.disable()
        try:
            del x, outputs
            assert [ref() for ref in gone] == [None, None]
        finally:
            gc.enable()
        assert stage.nbytes == 0
    assert [stage.backward(batch, ()) for batch in range(3)] == [(), (), ()]


def test_running_statistics_move_as_they_would_in_a_loop() -> None:
    stage, plain = frozen(module=nn.BatchNorm1d(3)), nn.BatchNorm1d(3)
    for batch in range(3):
        stage.forward(batch, (noise(4, 3, key=batch),))
        plain(noise(4, 3, key=batch))
    assert torch.equal(stage.module.running_mean, plain.running_mean)  # type: ignore[arg-type]
    assert torch.equal(stage.module.num_batches_tracked, plain.num_batches_tracked)  # type: ignore[arg-type]


def test_an_output_is_not_what_a_later_forward_changes() -> None:
    class Remembers(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.kept = torch.zeros(2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.kept.copy_(x)

    stage = frozen(module=nn.Sequential(nn.Identity(), Remembers()))
    (first,), _ = stage.forward(0, (torch.ones(2),))
    stage.forward(1, (torch.zeros(2),))
    assert torch.equal(first, torch.ones(2))


def test_only_what_lies_below_all_that_is_trained_is_of_this_kind() -> None:
    program = Program(Grid(1, 4), stale([3, 2, 1, 0]), 8, recompute=True, frozen=2)
    assert [kind_of_stage(program, k) for k in range(4)] == [FrozenStage, FrozenStage, RecomputingStage, Stage]
