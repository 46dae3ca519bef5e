"""Exact diffusion against the paper's own equations, on vectors."""

import pytest
import torch
from torch import nn

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixings import Diffusion
from tests.consensus.by_hand import Groups, noisy, random_modules, still


def papers(topology: str, updates: int) -> torch.Tensor:
    """Return w by ``psi' = w + d``, ``phi = psi' + w - psi``, ``w = (I + P)/2 phi``."""
    half = (torch.eye(4, dtype=torch.float64) + torch.from_numpy(mixing_matrix(topology, 4).weights(0).copy())) / 2
    steps, step = Groups(Diffusion(), "ring", random_modules(4)), noisy()
    w = psi = steps.vectors()
    for _ in range(updates):
        before = steps.vectors()
        for s, weights in enumerate(steps.weights):
            step(s, weights)
        made = w + (steps.vectors() - before)
        w, psi = half @ (made + w - psi), made
    return w


@pytest.mark.parametrize("topology", ["ring", "star", "complete"])
def test_w_is_what_the_paper_says(topology: str) -> None:
    groups, step = Groups(Diffusion(), topology, random_modules(4)), noisy()
    for n in range(12):
        groups.round(n, step)
    # Not bit for bit: here sums are taken as differences, in the order of the groups.
    torch.testing.assert_close(groups.vectors(), papers(topology, 12), rtol=0, atol=1e-12)


def test_the_mean_moves_by_the_mean_step_and_by_nothing_else() -> None:
    groups, step = Groups(Diffusion(), "star", random_modules(4)), noisy()
    others, same = Groups(Diffusion(), "ring", random_modules(4)), noisy()
    for n in range(10):
        groups.round(n, step)
        for s, weights in enumerate(others.weights):
            same(s, weights)
        torch.testing.assert_close(groups.vectors().mean(0), others.vectors().mean(0), rtol=0, atol=1e-13)


def test_without_steps_all_come_to_the_mean_of_what_they_had() -> None:
    groups = Groups(Diffusion(), "star", random_modules(4))
    mean = groups.vectors().mean(0)
    for n in range(800):
        groups.round(n, still)
    torch.testing.assert_close(groups.vectors(), mean.expand(4, -1), rtol=0, atol=1e-12)


def test_a_correction_is_not_of_what_was_sent() -> None:
    """A message is a vector that its sender does not change any more."""
    groups = Groups(Diffusion(), "ring", random_modules(3))
    sent = [next(iter(groups.lateral.after_update(unit, 0))) for unit in groups.units]
    messages = [m for e, share in zip(groups.exchanges, sent, strict=True) for m in e.step(share, [])]
    kept = [m.tensors[0].clone() for m in messages]
    for unit, exchange in zip(groups.units, groups.exchanges, strict=True):
        mix = list(groups.lateral.after_update(unit, 0))[1]
        exchange.step(mix, [m for tag in mix.needs for m in messages if m.tag == tag])
    assert all(torch.equal(m.tensors[0], before) for m, before in zip(messages, kept, strict=True))


def test_equal_groups_stay_equal_to_the_bit() -> None:
    groups = Groups(Diffusion(), "star", [nn.Linear(3, 2) for _ in range(4)])
    for weights in groups.weights:
        weights.flat.copy_(groups.weights[0].flat)
    before = groups.weights[0].flat.clone()
    for n in range(20):
        groups.round(n, still)
    assert all(torch.equal(weights.flat, before) for weights in groups.weights)
