import copy
import gc
from collections.abc import Callable
from functools import partial

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stalegrid.stages.stage import Stage
from tests.sites import DRAWING, noise
from tests.stages.test_stage import Remembering, Residual, TwoLayers, TwoTanh, build, equal, gradients, stage_of, update


def both(module: Callable[[], nn.Module], first: bool = False) -> tuple[Stage, Stage]:
    """Return a stage that keeps graphs and one that makes them late, alike."""
    return stage_of(build(module), "current", first), stage_of(build(module), "recomputed", first)


def test_without_updates_in_between_a_late_graph_is_the_early_one() -> None:
    early, late = both(Residual)
    for b in range(4):
        x = noise(3, 2, 3, 3, key=b)
        one, other = early.forward(b, (x,)), late.forward(b, (x,))
        assert torch.equal(one[0][0], other[0][0])
        assert one[1] == other[1] == 0
        assert not other[0][0].requires_grad
    for b in (1, 0, 2, 3):
        late.recompute(b)
        assert torch.equal(early.outputs(b)[0], late.outputs(b)[0])
        (one,), (other,) = (stage.backward(b, (noise(3, 4, key=b),)) for stage in (early, late))
        assert torch.equal(one, other)
        assert equal(gradients(early.module), gradients(late.module))
    assert all(torch.equal(a, b) for a, b in zip(early.module.buffers(), late.module.buffers(), strict=True))
    assert late.nbytes == 0


def test_a_late_graph_gives_the_exact_gradient_at_the_weights_of_now_for_the_input_of_then() -> None:
    stage = stage_of(build(Residual), "recomputed")
    for b in range(3):
        ((made,), version) = stage.forward(b, (noise(3, 2, 3, 3, key=b),))
        update(stage)
        assert version == b
    now, x = copy.deepcopy(stage.module), noise(3, 2, 3, 3, key=2).requires_grad_()
    with DRAWING(2):
        expected = now(x)
    expected.backward(noise(3, 4))
    stage.recompute(2)
    assert torch.equal(stage.outputs(2)[0], expected)
    assert not torch.equal(stage.outputs(2)[0], made)
    (below,) = stage.backward(2, (noise(3, 4),))
    assert torch.equal(below, x.grad)
    assert equal(gradients(stage.module), gradients(now))


def test_the_second_forward_draws_the_same_numbers() -> None:
    stage = stage_of(nn.Dropout(0.5), "recomputed")
    made = {b: stage.forward(b, (torch.ones(64),))[0][0] for b in range(3)}
    assert not torch.equal(made[0], made[1])
    for b in (2, 0, 1):
        stage.recompute(b)
        assert torch.equal(stage.outputs(b)[0], made[b])


class Averaged(nn.Module):
    """Running statistics by count, so that they depend on the counter."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(3, momentum=None)
        self.fc = nn.Linear(3, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.norm(x))


def test_the_second_forward_leaves_buffers_as_it_found_them() -> None:
    early, late = both(Averaged)
    for b in range(3):
        for stage in (early, late):
            stage.forward(b, (noise(5, 3, key=b),))
        if b:
            late.recompute(b - 1)
        pairs = list(zip(early.module.named_buffers(), late.module.named_buffers(), strict=True))
        assert len(pairs) == 3
        for (name, one), (_, other) in pairs:
            assert torch.equal(one, other), name
    assert int(late.module.norm.num_batches_tracked) == 3
    for b in range(2):
        (one,), (other,) = (stage.backward(b, (noise(5, 4),)) for stage in (early, late))
        assert torch.equal(one, other)
    late.weights.check()


class Masked(nn.Module):
    """Constants that the backward needs."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.register_buffer("mask", torch.arange(4) > 1)
        self.register_buffer("position", torch.arange(4))
        self.register_buffer("scale", torch.linspace(0.5, 1.0, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) * self.mask * self.position * self.scale


def test_buffers_that_the_graph_needs_are_not_touched() -> None:
    early, late = both(Masked)
    for stage in (early, late):
        stage.forward(0, (noise(5, 3),))
    late.recompute(0)
    (one,), (other,) = (stage.backward(0, (noise(5, 4),)) for stage in (early, late))
    assert torch.equal(one, other)
    assert equal(gradients(early.module), gradients(late.module))


@pytest.mark.parametrize("inplace", [nn.ReLU(inplace=True), nn.Hardtanh(-0.1, 0.1, inplace=True)])
@pytest.mark.parametrize("first", [False, True])
def test_a_model_that_changes_its_input_cannot_be_forwarded_again(inplace: nn.Module, first: bool) -> None:
    stage = stage_of(nn.Sequential(inplace, nn.Linear(3, 2)), "recomputed", first)
    with pytest.raises(RuntimeError, match="cannot be forwarded again" if first else "in an in-place operation"):
        stage.forward(0, (noise(4, 3),))


def test_before_its_second_forward_a_batch_keeps_nothing_but_its_inputs() -> None:
    early, late = both(Residual)
    inputs = 3 * 2 * 3 * 3 * 4
    for b in range(3):
        for stage in (early, late):
            stage.forward(b, (noise(3, 2, 3, 3, key=b),))
        assert late.nbytes == (b + 1) * inputs
    graph = early.nbytes // 3
    assert graph > inputs
    late.recompute(0)
    assert late.nbytes == graph + 2 * inputs
    late.backward(0, (noise(3, 4),))
    assert late.nbytes == 2 * inputs


def test_activations_of_the_first_forward_are_freed_at_once() -> None:
    model = Remembering()
    stage = stage_of(model, "recomputed")
    gc.collect()
    gc.disable()
    try:
        ((made,), _) = stage.forward(0, (noise(2, 3),))
        assert made is not None
        assert model.made[0]() is None, "the stage above has its own"
        stage.recompute(0)
        assert model.made[1]() is not None
        stage.backward(0, (noise(2, 3),))
        assert model.made[1]() is None
    finally:
        gc.enable()


class Recurrent(nn.Module):
    """Whose kernel computes other bits where no gradient is wanted."""

    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.LSTM(3, 4, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x)[0]


def test_the_first_forward_has_the_bits_of_the_second() -> None:
    early, late = both(Recurrent)
    sent = [stage.forward(0, (noise(5, 6, 3),))[0][0] for stage in (early, late)]
    late.recompute(0)
    assert torch.equal(*sent)
    assert torch.equal(sent[1], late.outputs(0)[0])


def test_a_late_graph_has_the_loss_too() -> None:
    targets = torch.tensor([0, 1, 1, 0])
    early, late = both(TwoLayers)
    for stage in (early, late):
        ((loss,), _) = stage.forward(0, (noise(4, 3),), lambda y: F.cross_entropy(y, targets))
        stage.recompute(0)
        assert torch.equal(stage.outputs(0)[0], loss)
        stage.backward(0, (torch.tensor(0.5),))
    assert equal(gradients(early.module), gradients(late.module))


def test_a_late_graph_gives_the_first_stage_no_gradient_of_the_data() -> None:
    _, stage = both(TwoLayers, first=True)
    x = noise(4, 3)
    stage.forward(0, (x,))
    stage.recompute(0)
    assert stage.backward(0, (noise(4, 2),)) == ()
    assert not x.requires_grad


def test_a_graph_that_is_made_late_does_not_make_checkpointing_inexact() -> None:
    """The weights of the second forward are those of its backward, so that a third forward finds them unchanged."""
    plain, stage = build(TwoTanh), stage_of(build(partial(TwoTanh, checkpointed=True)), "recomputed")
    stage.forward(0, (noise(2, 3),))
    update(stage)
    with torch.no_grad():
        for p, q in zip(plain.parameters(), stage.module.parameters(), strict=True):
            p.copy_(q)
    stage.recompute(0)
    stage.backward(0, (noise(2, 3),))
    plain(noise(2, 3)).backward(noise(2, 3))
    assert equal(gradients(stage.module), gradients(plain))
