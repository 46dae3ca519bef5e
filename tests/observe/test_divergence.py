"""How unlike predictions are, held against Lin's formula by entropies."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stalegrid.observe.divergence import Divergence, class_scores


def entropy(p: Any) -> Any:
    return -np.where(p > 0, p * np.log(np.where(p > 0, p, 1)), 0).sum(axis=-1)


def lin(scores: list[Tensor], weights: list[float]) -> float:
    """The root of the mean over predictions of H(sum pi p) - sum pi H(p)."""
    probabilities = [one.double().softmax(-1).numpy() for one in scores]
    shares = [weight / sum(weights) for weight in weights]
    middle = sum(share * p for share, p in zip(shares, probabilities, strict=True))
    apart = entropy(middle) - sum(share * entropy(p) for share, p in zip(shares, probabilities, strict=True))
    return float(np.sqrt(apart.mean()))


@pytest.mark.parametrize("weights", [[1.0, 1.0, 1.0], [1.0, 0.25, 0.5]])
def test_it_is_the_difference_of_entropies(weights: list[float]) -> None:
    draw = torch.Generator().manual_seed(0)
    scores = [torch.randn(10, 4, generator=draw) * 3 for _ in weights]
    found = Divergence(weights)
    found.update([one[:7] for one in scores])
    found.update([one[7:] for one in scores])
    assert found.distance() == pytest.approx(lin(scores, weights), rel=1e-12)
    found.reset()
    found.update([one[:7] for one in scores])
    assert found.distance() == pytest.approx(lin([one[:7] for one in scores], weights), rel=1e-12)


def test_models_that_predict_alike_are_not_apart() -> None:
    scores = torch.randn(50, 7)
    found = Divergence([1.0, 1.0, 0.3])
    found.update([scores, scores.clone(), scores.clone()])
    assert found.distance() == 0.0


def test_those_that_share_no_class_are_as_far_apart_as_can_be() -> None:
    scores = torch.full((3, 4, 3), -math.inf)
    for s in range(3):
        scores[s, :, s] = 0.0
    found = Divergence([1.0] * 3)
    found.update(list(scores))
    assert found.distance() == pytest.approx(math.sqrt(math.log(3)), rel=1e-15)


def test_small_differences_are_seen() -> None:
    """To second order the divergence of p and p + d is sum d^2 / (8 p)."""
    scores = torch.zeros(1, 2, dtype=torch.float64)
    found = Divergence([1.0, 1.0])
    found.update([scores, scores + torch.tensor([[1e-6, 0.0]])])
    assert found.distance() == pytest.approx(math.sqrt(2 * (0.25e-6) ** 2 / 4), rel=1e-3)


def test_what_is_not_finite_is_no_number() -> None:
    found = Divergence([1.0, 1.0])
    found.update([torch.tensor([[math.nan, 0.0]]), torch.zeros(1, 2)])
    assert math.isnan(found.distance())


LABELS, TOKENS = torch.zeros(5, dtype=torch.int64), torch.zeros(5, 3, dtype=torch.int64)


@pytest.mark.parametrize(
    ("outputs", "targets", "rows"),
    [
        (torch.arange(20.0).view(5, 4), LABELS, torch.arange(20.0).view(5, 4)),
        (torch.arange(60.0).view(5, 3, 4), TOKENS, torch.arange(60.0).view(15, 4)),
        (torch.arange(60.0).view(5, 3, 4).transpose(1, 2), TOKENS, torch.arange(60.0).view(15, 4)),
        ({"logits": torch.arange(20.0).view(5, 4)}, {"labels": LABELS}, torch.arange(20.0).view(5, 4)),
    ],
)
def test_scores_of_classes_are_found(outputs: Any, targets: Any, rows: Tensor) -> None:
    found = class_scores(outputs, targets)
    assert found is not None
    assert torch.equal(found, rows)


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(5), torch.zeros(5)),
        (torch.zeros(5, 1), LABELS),
        (torch.zeros(5, 4), torch.zeros(5)),
        (torch.zeros(5, 4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(5, 3, 3), TOKENS),
        (torch.zeros(5, 4, dtype=torch.int64), LABELS),
        ((torch.zeros(5, 4),), LABELS),
    ],
)
def test_what_is_none_or_not_told_apart_is_not(outputs: Any, targets: Any) -> None:
    assert class_scores(outputs, targets) is None
