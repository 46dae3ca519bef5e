"""The state of an optimizer goes to another like it."""

import pytest
import torch
from torch import nn

from stalegrid.stages.optimizers.state import load_optimizer, state_of_optimizer


@pytest.mark.parametrize(("fused", "there"), [(True, "meta"), (False, "cpu")])
def test_single_numbers_are_beside_the_parameter_where_kernels_take_all_in_one_go(fused: bool, there: str) -> None:
    on_cpu, elsewhere = nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(3, device="meta"))
    saved = torch.optim.Adam([on_cpu], fused=fused)
    on_cpu.grad = torch.ones(3)
    saved.step()
    other = torch.optim.Adam([elsewhere], fused=False)
    load_optimizer(other, state_of_optimizer(saved))
    assert other.state[elsewhere]["step"].device.type == there
