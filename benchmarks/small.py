"""A small model and its data, which train hundreds of updates a second.

Does not know: how they are trained.
"""

import torch
from torch import nn
from torch.utils.data import TensorDataset

_SAMPLES, _TESTED, _WIDTH = 96, 16, 8


def net() -> nn.Sequential:
    """Return a model with a running statistic and draws, which a run that goes on must have too."""
    lower = [nn.Linear(_WIDTH, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2)]
    return nn.Sequential(*lower, nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 2))


def sets() -> tuple[TensorDataset, TensorDataset]:
    """Return samples to train on, and to test with."""
    x = torch.randn(_SAMPLES + _TESTED, _WIDTH)
    y = (x[:, :4].sum(1) > x[:, 4:].sum(1)).long()
    return TensorDataset(x[_TESTED:], y[_TESTED:]), TensorDataset(x[:_TESTED], y[:_TESTED])
