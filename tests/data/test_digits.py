import sys

import pytest
import torch

from stalegrid.data import load_digits
from stalegrid.errors import ConfigError

datasets = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")


def test_the_split_is_a_partition_of_the_bundle() -> None:
    train, test = load_digits(train=True), load_digits(train=False)
    assert (len(train), len(test)) == (1437, 360)
    assert train.inputs.shape == (1437, 1, 8, 8)
    assert train.inputs.dtype == torch.float32
    bundle = datasets.load_digits()
    scaled = (torch.from_numpy(bundle.images).float() / 16 - 0.3053) / 0.3761
    whole = sorted(zip(scaled.flatten(1).tolist(), bundle.target.tolist(), strict=True))
    inputs, targets = torch.cat([train.inputs, test.inputs]), torch.cat([train.targets, test.targets])
    assert sorted(zip(inputs.flatten(1).tolist(), targets.tolist(), strict=True)) == whole


def test_every_class_is_on_both_sides() -> None:
    assert load_digits(train=True).targets.bincount().min() > 100
    assert load_digits(train=False).targets.bincount().min() > 20


def test_the_split_is_always_the_same() -> None:
    first = load_digits(train=False)
    torch.rand(1)
    again = load_digits(train=False)
    assert torch.equal(first.inputs, again.inputs)
    assert torch.equal(first.targets, again.targets)


def test_pixels_are_centred() -> None:
    inputs = torch.cat([load_digits(train=True).inputs, load_digits(train=False).inputs])
    assert inputs.mean().item() == pytest.approx(0, abs=1e-3)
    assert inputs.std().item() == pytest.approx(1, abs=1e-3)


def test_without_scikit_learn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(ConfigError, match=r'pip install "stalegrid\[digits\]"'):
        load_digits(train=True)
