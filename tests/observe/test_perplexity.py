"""Perplexity, held against the definition."""

import math

import pytest
import torch
from torch import Tensor

from stalegrid.observe.perplexity import Perplexity


def drawn(samples: int, tokens: int) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(samples)
    scores = torch.randn(samples, tokens, 7, generator=draw, dtype=torch.float64)
    return scores, torch.randint(0, 7, (samples, tokens), generator=draw)


def defined(scores: Tensor, targets: Tensor) -> float:
    """exp(-1/T sum log p), token by token in plain numbers."""
    logs = []
    for row, target in zip(scores.reshape(-1, 7).tolist(), targets.flatten().tolist(), strict=True):
        if target != -100:
            logs.append(row[target] - math.log(sum(math.exp(value) for value in row)))
    return math.exp(-sum(logs) / len(logs))


def test_every_token_counts_alike_however_slices_are() -> None:
    scores, targets = drawn(6, 5)
    targets[0, :4] = targets[5, 2:] = -100
    one, three = Perplexity(), Perplexity()
    one.update(scores, targets)
    for part in (slice(0, 1), slice(1, 4), slice(4, 6)):
        three.update(scores[part], targets[part])
    assert one.compute() == pytest.approx(defined(scores, targets), rel=1e-12)  # sums in another order
    assert three.compute() == pytest.approx(one.compute(), rel=1e-12)


def test_a_model_that_knows_nothing_hesitates_between_all_tokens() -> None:
    perplexity = Perplexity()
    perplexity.update(torch.zeros(2, 3, 7), torch.zeros(2, 3, dtype=torch.int64))
    assert perplexity.compute() == pytest.approx(7.0, rel=1e-6)  # log 7 in single precision


def test_classes_may_be_in_the_second_dimension_as_torch_has_them() -> None:
    scores, targets = drawn(3, 5)
    one, other = Perplexity(), Perplexity(classes=1)
    one.update(scores, targets)
    other.update(scores.movedim(-1, 1), targets)
    assert one.compute() == other.compute()


def test_labels_of_transformers_are_the_inputs_themselves() -> None:
    scores, targets = drawn(3, 5)
    perplexity = Perplexity(shift=1)
    perplexity.update({"logits": scores}, {"labels": targets, "input_ids": targets})
    assert perplexity.compute() == pytest.approx(defined(scores[:, :-1], targets[:, 1:]), rel=1e-12)


def test_shapes_that_do_not_fit_and_no_token_at_all_are_said() -> None:
    scores, targets = drawn(3, 5)
    with pytest.raises(ValueError, match="a score for each class of each target"):
        Perplexity().update(scores.movedim(-1, 1), targets)
    with pytest.raises(ValueError, match="it needs scores"):
        Perplexity().update({"hidden": scores}, targets)
    empty = Perplexity()
    empty.update(scores, torch.full_like(targets, -100))
    with pytest.raises(ValueError, match="there is no token"):
        empty.compute()


def test_what_no_float_holds_is_infinite() -> None:
    perplexity = Perplexity()
    perplexity.update(torch.tensor([[[0.0, 2000.0]]]), torch.tensor([[0]]))
    assert perplexity.compute() == math.inf
