"""Push-sum against the paper's own sums, on vectors."""

import pytest
import torch
from torch import nn

from stalegrid.consensus.directed import push_matrix
from stalegrid.consensus.mixings import AdaptThenCombine, Push
from stalegrid.consensus.pushsum import PushSum
from tests.consensus.by_hand import Groups, noisy, random_modules, still

UNLIKE = "0>1,1>2,2>3,3>0,0>2,2>0"
"""Some send to more groups than send to them."""


def papers(topology: str, groups: int, updates: int, period: int = 1) -> torch.Tensor:
    """Return z of all groups by ``x' = x + d``, ``x = A x'``, ``w = A w``, ``z = x / w``; d is what was added to z."""
    shares = torch.from_numpy(push_matrix(topology, groups).weights(0).copy())
    modules, step = random_modules(groups), noisy()
    made = Groups(Push(), "ring", modules)  # whose weights are the steps' alone
    x, w = made.vectors(), torch.ones(groups, 1, dtype=torch.float64)
    for n in range(updates):
        before = made.vectors()
        for s, weights in enumerate(made.weights):
            step(s, weights)
        x = x + (made.vectors() - before)
        if (n + 1) % period == 0:
            x, w = shares @ x, shares @ w
    return x / w


def numbers(groups: Groups) -> list[float]:
    """Return w of all groups, of which all know the same."""
    (first, *others) = (exchange._w for exchange in groups.exchanges if isinstance(exchange, PushSum))
    assert all(other == first for other in others)
    return first


@pytest.mark.parametrize("period", [1, 3])
@pytest.mark.parametrize("topology", ["ring", "star", UNLIKE])
def test_z_is_x_over_w(topology: str, period: int) -> None:
    groups, step = Groups(Push(), topology, random_modules(4), period), noisy()
    for n in range(12):
        groups.round(n, step)
    # Not bit for bit: z is kept, and x is not, so that sums are rounded at other places.
    torch.testing.assert_close(groups.vectors(), papers(topology, 4, 12, period), rtol=0, atol=1e-12)


def test_without_steps_all_come_to_the_mean_of_what_they_had() -> None:
    groups = Groups(Push(), UNLIKE, random_modules(4))
    mean = groups.vectors().mean(0)
    for n in range(200):
        groups.round(n, still)
    torch.testing.assert_close(groups.vectors(), mean.expand(4, -1), rtol=0, atol=1e-13)


def test_what_is_pushed_is_neither_lost_nor_made() -> None:
    groups, step = Groups(Push(), UNLIKE, random_modules(4)), noisy()

    def sum_of_x() -> torch.Tensor:
        return (torch.tensor(numbers(groups), dtype=torch.float64)[:, None] * groups.vectors()).sum(0)

    for n in range(8):
        before = sum_of_x()
        groups.round(n, step if n < 4 else still)
        if n >= 4:
            torch.testing.assert_close(sum_of_x(), before, rtol=0, atol=1e-12)
    assert sum(numbers(groups)) == pytest.approx(4, abs=1e-14)
    assert max(numbers(groups)) > 1.1


def test_w_is_one_for_ever_where_as_much_comes_as_goes() -> None:
    """Sums are rounded once: S times 1/S is then 1 for every S below 49, which a sum of roundings is not for 6."""
    assert sum([1 / 6] * 6) < 1
    for groups in (3, 6, 10, 48):
        made = Groups(Push(), "complete", [nn.Linear(1, 1) for _ in range(groups)])
        made.round(0, still)
        assert numbers(made) == [1.0] * groups


@pytest.mark.parametrize(("topology", "groups"), [("complete", 6), ("ring", 5), ("exponential", 8), ("ring", 2)])
def test_with_edges_both_ways_and_one_degree_it_is_averaging_to_the_bit(topology: str, groups: int) -> None:
    found = []
    for mixing in (Push(), AdaptThenCombine()):
        made, step = Groups(mixing, topology, random_modules(groups)), noisy()
        for n in range(6):
            made.round(n, step)
        found.append(made.vectors())
    assert torch.equal(*found)


def test_equal_groups_stay_equal_to_the_bit() -> None:
    groups = Groups(Push(), UNLIKE, [nn.Linear(3, 2).requires_grad_() for _ in range(4)])
    for weights in groups.weights:
        weights.flat.copy_(groups.weights[0].flat)
    before = groups.weights[0].flat.clone()
    for n in range(20):
        groups.round(n, still)
    assert all(torch.equal(weights.flat, before) for weights in groups.weights)
