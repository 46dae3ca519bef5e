from pathlib import Path

import pytest
import torch

from stalegrid.data import load
from stalegrid.errors import ConfigError, DataError


def test_digits_need_no_folder() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    train, test = load("digits", None)
    assert (len(train), len(test)) == (1437, 360)


@pytest.mark.parametrize("name", ["cifar10", "mnist", "text"])
def test_a_folder_is_asked_for(name: str) -> None:
    with pytest.raises(ConfigError, match=f"{name} .* --data.folder DIR"):
        load(name, None)


@pytest.mark.parametrize("name", ["cifar10", "mnist"])
def test_the_folder_is_looked_at(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=str(tmp_path)):
        load(name, tmp_path)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(ConfigError, match="'cifar'; there are digits, cifar10, mnist and text"):
        load("cifar", None)


def test_the_official_files(real_data: Path) -> None:
    train, test = load("mnist", real_data)
    assert (len(train), len(test)) == (60_000, 10_000)
    assert torch.equal(train.targets[:3], torch.tensor([5, 0, 4]))
