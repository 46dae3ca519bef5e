"""Gradient tracking against the paper's own equations, on vectors, and what has no gradient."""

import pytest
import torch
from torch import Tensor, nn

from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.consensus.mixings import Tracked
from stalegrid.consensus.tracking import GradientTracking
from stalegrid.stages.weights import Weights
from tests.consensus.by_hand import Groups, random_modules

RATE = 0.1


def squares(s: int, weights: Weights) -> None:
    """Let every group have the gradients of its own quadratic function."""
    for p in weights.trainable():
        p.grad = (s + 1) * (p.detach() - s)


def descend(s: int, weights: Weights) -> None:
    for p in weights.trainable():
        if p.grad is not None:
            p.data -= RATE * p.grad
            p.grad = None


def papers(topology: str, updates: int, period: int) -> Tensor:
    """Return w by ``w' = P w - a q``, ``q' = P q + g(w') - g(w)``, ``q_0 = g(w_0)``; P is I where groups do not mix."""
    mixing, eye = mixing_matrix(topology, 4), torch.eye(4, dtype=torch.float64)
    groups = torch.arange(4, dtype=torch.float64)[:, None]
    w = Groups(Tracked(), "ring", random_modules(4)).vectors()
    q = old = torch.zeros_like(w)
    for n in range(updates):
        turn, mixes = (n + 1) // period - 1, (n + 1) % period == 0
        shares = torch.from_numpy(mixing.weights(turn).copy()) if mixes else eye
        g = (groups + 1) * (w - groups)
        q = shares @ q + g - old if n else g
        old, w = g, shares @ w - RATE * q
    return w


def used(weights: Weights) -> Tensor:
    """Return which elements of the vector are no padding."""
    mask = torch.zeros(weights.trained, dtype=torch.bool)
    for entry, p in weights.places():
        mask[entry.offset : entry.offset + p.numel()] = True
    return mask


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("topology", ["ring", "star", "one-peer-exponential"])
def test_w_is_what_the_paper_says(topology: str, period: int) -> None:
    groups = Groups(Tracked(), topology, random_modules(4), period)
    for n in range(12):
        groups.round(n, descend, squares)
    mask = used(groups.weights[0])
    # Not bit for bit: here sums are taken as differences, in the order of the groups.
    torch.testing.assert_close(groups.vectors()[:, mask], papers(topology, 12, period)[:, mask], rtol=0, atol=1e-11)
    assert not groups.vectors()[:, ~mask].any()


def test_the_mean_of_what_is_tracked_is_that_of_the_gradients() -> None:
    groups, seen = Groups(Tracked(), "star", random_modules(4)), list[Tensor]()

    def backward(s: int, weights: Weights) -> None:
        squares(s, weights)
        seen.append(torch.cat([p.grad.flatten() for p in weights.trainable() if p.grad is not None]))

    for n in range(8):
        seen.clear()
        groups.round(n, descend, backward)
        mask = used(groups.weights[0])
        tracked = [e._tracked[mask] for e in groups.exchanges if isinstance(e, GradientTracking)]
        torch.testing.assert_close(torch.stack(tracked).mean(0), torch.stack(seen).mean(0), rtol=0, atol=1e-12)


def steps(groups: Groups, uses: dict[tuple[int, int], bool], updates: int) -> list[list[bool]]:
    """Return which groups get a step of their bias in each update, where (group, update) says who uses it."""
    found: list[list[bool]] = []
    for n in range(updates):

        def backward(s: int, weights: Weights, n: int = n) -> None:
            squares(s, weights)
            if not uses.get((s, n)):
                weights.trainable()[1].grad = None

        def step(s: int, weights: Weights) -> None:
            found[-1].append(weights.trainable()[1].grad is not None)
            descend(s, weights)

        found.append([])
        groups.round(n, step, backward)
    return found


def test_what_nobody_has_used_gets_no_step_until_word_of_a_use_has_come() -> None:
    groups = Groups(Tracked(), "0-1,1-2", random_modules(3))
    bias = groups.weights[2].trainable()[1]
    seen = steps(groups, {(0, 1): True}, 5)
    assert seen == [[False] * 3, [True, False, False], [True, True, False], [True] * 3, [True] * 3]
    assert bias.grad is None
    never = Groups(Tracked(), "complete", random_modules(3))
    assert steps(never, {}, 3) == [[False] * 3] * 3


def test_from_its_first_use_on_no_gradient_is_one_of_zero() -> None:
    groups = Groups(Tracked(), "0-1,1-2", random_modules(3))
    steps(groups, {(0, 0): True, (1, 0): True}, 3)
    tracked = [e._tracked for e in groups.exchanges if isinstance(e, GradientTracking)]
    assert len(tracked) == 3
    (entry, _) = groups.weights[0].places()[1]
    total = torch.stack([q[entry.offset : entry.offset + 2] for q in tracked]).sum(0)
    assert total.abs().max() < 1e-12
    assert tracked[0][entry.offset].abs() > 1e-3 or tracked[1][entry.offset].abs() > 1e-3


def test_gradients_may_be_changed_in_place_without_changing_what_is_tracked() -> None:
    groups = Groups(Tracked(), "ring", random_modules(3))

    def clip(s: int, weights: Weights) -> None:
        for p in weights.trainable():
            assert p.grad is not None
            p.grad.zero_()

    groups.round(0, clip, squares)
    assert all(e._tracked.abs().max() > 0.1 for e in groups.exchanges if isinstance(e, GradientTracking))


def test_equal_groups_with_equal_gradients_step_by_these_to_the_bit() -> None:
    groups = Groups(Tracked(), "star", [nn.Linear(3, 2) for _ in range(4)])
    for weights in groups.weights:
        weights.flat.copy_(groups.weights[0].flat)
    alone = groups.weights[0].flat.clone().double().float()
    module = nn.Linear(3, 2)
    plain = Weights(module)
    plain.flat.copy_(alone)
    for n in range(10):
        groups.round(n, descend, lambda s, weights: squares(1, weights))
        squares(1, plain)
        descend(1, plain)
    assert all(torch.equal(weights.flat, plain.flat) for weights in groups.weights)
