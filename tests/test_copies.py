import threading
import warnings

import pytest
import torch
from torch import nn

from stalegrid.copies import copied
from stalegrid.errors import ConfigError


def test_a_copy_is_equal_and_shares_nothing() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    made = copied(model)
    pairs = list(zip(model.state_dict().values(), made.state_dict().values(), strict=True))
    assert all(torch.equal(a, b) and a.data_ptr() != b.data_ptr() for a, b in pairs)


def test_a_result_that_is_kept_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    model[0].last = model[0](torch.ones(1, 2))
    with pytest.raises(ConfigError, match=r"result of a computation.*\(attribute: 0\.last\); detach it"):
        copied(model)
    model[0].last = model[0].last.detach()
    assert torch.equal(copied(model)[0].last, model[0].last)


def test_the_remedy_for_the_old_weight_norm() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        old = nn.utils.weight_norm(nn.Linear(2, 3))
    with pytest.raises(ConfigError, match=r"attribute: weight.*torch\.nn\.utils\.parametrizations"):
        copied(old)
    copied(nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)))


def test_whatever_else_cannot_be_copied_is_said() -> None:
    model = nn.Linear(2, 3)
    model.lock = threading.Lock()
    with pytest.raises(ConfigError, match=r"cannot be copied \(model: Linear\): cannot pickle '_thread.lock'"):
        copied(model)
