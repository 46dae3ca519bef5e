import math

import pytest
import torch

from stalegrid.consensus import correlation
from stalegrid.consensus.correlation import Correlation


def test_it_is_the_mean_cosine_since_it_was_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(correlation, "CHUNK", 4)
    vectors = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    expected = torch.cosine_similarity(vectors[1:].double(), vectors[:-1].double()).tolist()
    found = Correlation()
    for vector in vectors[:3]:
        found.add(vector)
    assert found.told() == pytest.approx(sum(expected[:2]) / 2)
    found.add(vectors[3])
    assert found.told() == pytest.approx(expected[2])
    assert math.isnan(found.told())


def test_a_vector_without_a_direction_has_none() -> None:
    found = Correlation()
    for vector in (torch.ones(3), torch.zeros(3), torch.ones(3), torch.ones(3)):
        found.add(vector)
    assert found.told() == pytest.approx(1.0)


def test_a_stage_without_parameters_has_none() -> None:
    found = Correlation()
    for _ in range(2):
        found.add(torch.empty(0))
    assert math.isnan(found.told())
