"""The variance of gradients of batches is that of samples over the size of a batch, on average."""

import itertools
from typing import Any, cast

import pytest
import torch
from torch import Tensor

from stalegrid.diagnosis.fixed import Fixed
from stalegrid.diagnosis.noise import Noise, noise_of
from stalegrid.diagnosis.spread import Spread
from stalegrid.limits import Losses

SIZES = [2, 1]


class Given:
    """Gradients that are known beforehand."""

    def __init__(self, gradients: Tensor) -> None:
        self._gradients = gradients

    def __len__(self) -> int:
        return len(self._gradients)

    def gradient(self, batch: int) -> Tensor:
        return self._gradients[batch]


def found(batches: Tensor, singles: Tensor | None, *sizes: int) -> Noise:
    given = [None if x is None else cast(Losses, Given(x)) for x in (batches, singles)]
    assert given[0] is not None
    return noise_of(given[0], given[1], Fixed(cast(Any, None), None, 1, sizes), SIZES)


def test_over_all_ways_to_deal_an_epoch_the_variance_of_batches_is_what_samples_predict() -> None:
    gradients = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    total, predicted = torch.zeros(2, dtype=torch.float64), None
    orders = list(itertools.permutations(range(6)))
    for order in orders:
        # Two batches of two of an epoch of three: they have no sample in common.
        noise = found(gradients[list(order[:4])].view(2, 2, 3).mean(1), gradients, 2)
        assert noise.measured is not None
        total += torch.tensor(noise.measured, dtype=torch.float64)
        predicted = noise.predicted
    assert (total / len(orders)).tolist() == pytest.approx(predicted, rel=1e-9)


def test_groups_have_means_of_their_own() -> None:
    draw = torch.Generator().manual_seed(0)
    gradients = torch.randn(8, 3, generator=draw, dtype=torch.float64)
    gradients[1::2] += 100  # of the second group: how far groups are apart is no noise
    noise = found(gradients[:4], gradients, 2, 5)
    own = [gradients[s::2].var(0, unbiased=True) for s in range(2)]
    sums = [[float(v[:2].sum()), float(v[2])] for v in own]
    assert noise.variances == pytest.approx([(a + b) / 2 for a, b in zip(*sums, strict=True)])
    assert noise.predicted == pytest.approx([(a / 2 + b / 5) / 2 for a, b in zip(*sums, strict=True)])
    assert noise.bound == pytest.approx((2 * max(sums[0]) / 2 + 2 * max(sums[1]) / 5) / 2)
    assert torch.allclose(noise.gradient, gradients[:4].mean(0))


def test_of_one_vector_there_is_no_variance() -> None:
    spread = Spread(SIZES)
    assert spread.variances() is None
    spread.add(torch.ones(3))
    assert spread.variances() is None
    one = torch.ones(1, 3, dtype=torch.float64)
    assert found(one, one, 2).measured is None
    assert found(one, one, 2).predicted is None
    assert found(one, None, 2).predicted is None
