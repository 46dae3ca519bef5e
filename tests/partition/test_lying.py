import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.partition.cutting import partition
from stalegrid.partition.lying import lying_alike
from stalegrid.partition.trace import trace
from tests.cases import build
from tests.partition.test_trace import noise

torch.set_num_threads(1)


class Scaled(nn.Module):
    """Channels are last where they are scaled, and first where places are averaged, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.layer = nn.Conv2d(3, 16, 2, 2), nn.Linear(16, 16)
        self.scale, self.head = nn.Parameter(torch.full((16,), 0.1)), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x)
        scaled = self.scale * self.layer(h.permute(0, 2, 3, 1))
        return self.head((h + scaled.permute(0, 3, 1, 2)).mean((2, 3)))


def test_a_gradient_that_lies_otherwise_than_its_value_is_found() -> None:
    alike = lying_alike(trace(build(Scaled).train(), (noise(4, 3, 32, 32),)), (noise(4, 3, 32, 32),))
    assert {"stem", "mean", "add"} <= alike
    assert "permute_1" not in alike


def test_what_has_no_gradient_is_in_no_way() -> None:
    model = build(Scaled).requires_grad_(False).train()
    assert {"stem", "permute_1"} <= lying_alike(trace(model, (noise(4, 3, 32, 32),)), (noise(4, 3, 32, 32),))


def test_a_cut_where_a_sum_over_gradients_rounds_otherwise_is_refused_and_balanced_ones_find_another() -> None:
    model, inputs = build(Scaled), (noise(4, 3, 32, 32),)
    with pytest.raises(
        ConfigError, match=r"the gradient of (scale|layer.bias) differs.*in the memory layout of its value"
    ):
        partition(model, inputs, 2, ["add"])
    partition(model, inputs, 2)
