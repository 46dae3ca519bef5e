import math

import pytest
import torch
from torch import nn

from stalegrid.stages.corrections.clip import Clip
from stalegrid.stages.corrections.named import Update
from tests.sites import give_gradients, make_site

UPDATE = Update(0, 0, None)


def test_longer_gradients_are_scaled_to_the_norm() -> None:
    """By torch's own function to the bit; by the formula up to rounding, because it sums squares tensor by tensor."""
    site = make_site()
    gradients = give_gradients(site, 1)
    Clip(site, 0.125).correct(UPDATE)
    parameters = [nn.Parameter(torch.zeros_like(g)) for g in gradients]
    for p, g in zip(parameters, gradients, strict=True):
        p.grad = g.clone()
    nn.utils.clip_grad_norm_(parameters, 0.125)
    norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
    assert norm > 0.125
    for p, own, g in zip(site.weights.trainable(), parameters, gradients, strict=True):
        assert torch.equal(p.grad, own.grad)
        torch.testing.assert_close(p.grad, g * (0.125 / norm), rtol=1e-5, atol=0)


def test_shorter_gradients_stay() -> None:
    site = make_site()
    gradients = give_gradients(site, 1)
    Clip(site, 100.0).correct(UPDATE)
    assert all(torch.equal(p.grad, g) for p, g in zip(site.weights.trainable(), gradients, strict=True))


@pytest.mark.parametrize("without", [0, 1])
def test_a_parameter_without_a_gradient_counts_for_nothing(without: int) -> None:
    site = make_site()
    give_gradients(site, 1)
    site.weights.trainable()[without].grad = None
    Clip(site, 0.125).correct(UPDATE)
    other = site.weights.trainable()[1 - without].grad
    torch.testing.assert_close(other.norm(), torch.tensor(0.125), rtol=1e-5, atol=0)
    site.weights.zero_grad()
    Clip(site, 0.125).correct(UPDATE)


def test_frozen_parameters_count_for_nothing() -> None:
    site = make_site(nn.Sequential(nn.Linear(3, 2).requires_grad_(False), nn.Linear(2, 2)))
    give_gradients(site, 0)
    Clip(site, 0.5).correct(UPDATE)
    total = torch.stack([p.grad.norm() for p in site.weights.trainable()]).norm()
    torch.testing.assert_close(total, torch.tensor(0.5), rtol=1e-5, atol=0)
