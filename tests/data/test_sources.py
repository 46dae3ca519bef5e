"""The content of tensors is that of their values, whatever their memory looks like."""

import pytest
import torch
from torch import Tensor

from stalegrid.data.sources import bytes_of


@pytest.mark.parametrize(
    "values",
    [
        torch.arange(6),
        torch.arange(6)[::2],
        torch.arange(6.0).view(2, 3).t(),
        torch.arange(6.0).view(2, 3)[:, 1:],
        torch.ones(2, 3).expand(4, 2, 3),
        torch.ones(2, requires_grad=True),
        torch.tensor(True),
        torch.empty(0),
    ],
    ids=["whole", "spread", "transposed", "cut", "expanded", "trained", "single", "empty"],
)
def test_bytes_are_those_of_the_values_in_their_order(values: Tensor) -> None:
    assert bytes_of(values) == values.detach().numpy().tobytes()
