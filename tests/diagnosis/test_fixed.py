"""What a run is diagnosed on has no sample twice, whatever an epoch has."""

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.diagnosis import read_fixed
from stalegrid.limits import Sample
from tests.cases import make_plan, make_settings, make_task


def numbers(sample: Sample) -> list[int]:
    """Return which samples there are: each is told by its input."""
    values: list[Tensor] = [inputs[0] for inputs, _ in sample.batches]
    return torch.cat(values)[:, 0].int().tolist()


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize(("groups", "samples"), [(1, 14), (1, 7), (2, 14), (2, 30)])
def test_no_sample_is_there_twice(groups: int, samples: int, drop_last: bool) -> None:
    data = TensorDataset(torch.arange(samples * 3.0).view(samples, 3) // 3, torch.zeros(samples, dtype=torch.long))
    task = make_task(model=nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 2)), data=data)
    plan = make_plan(task, make_settings(groups, 2, cuts=["1"], batch_size=4, drop_last=drop_last, updates=6))
    fixed = read_fixed(task, plan)
    assert fixed.singles is not None
    for sample in (fixed.batches, fixed.singles):
        found = numbers(sample)
        assert len(set(found)) == len(found), found
