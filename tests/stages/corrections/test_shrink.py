import pytest
import torch

from stalegrid.stages.corrections.named import Update
from stalegrid.stages.corrections.shrink import Shrink
from tests.sites import give_gradients, make_site, noise


def shrink(beta: float, stage: int, stages: int = 3) -> Shrink:
    return Shrink(make_site(staleness=[stages - 1 - k for k in range(stages)], stage=stage), beta)


@pytest.mark.parametrize("stage", [0, 1])
def test_what_a_stage_receives_is_scaled(stage: int) -> None:
    given = (noise(2, 3), noise(4, key=1))
    before = [g.clone() for g in given]
    made = shrink(0.7, stage).received(given)
    assert all(torch.equal(a, b * 0.7) for a, b in zip(made, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(given, before, strict=True)), "the sender's tensors are not changed"


def test_one_shrinks_nothing() -> None:
    g = noise(50)
    assert torch.equal(shrink(1.0, 0).received((g,))[0], g)


def test_gradients_before_the_update_and_the_rate_stay() -> None:
    correction = shrink(0.5, 0)
    gradients = give_gradients(correction.site, 0)
    update = Update(1, 2, None)
    correction.correct(update)
    assert correction.rate(update) == 1.0
    assert all(torch.equal(p.grad, g) for p, g in zip(correction.site.weights.trainable(), gradients, strict=True))
