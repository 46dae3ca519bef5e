import torch
from torch import nn

from stalegrid.programs.schedules import Schedule, gpipe
from stalegrid.stages.site import part
from tests.sites import make_site


class Mixed(nn.Module):
    """Parameters in another memory order, frozen ones, tied ones, and running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.frozen.weight


def test_a_part_is_the_place_of_its_parameter_in_any_vector_of_the_layout() -> None:
    site = make_site(Mixed())
    weights = site.weights
    vector = torch.arange(weights.trained, dtype=torch.float32)
    for whole in (vector, torch.cat([vector, torch.zeros(9)])):
        for entry, parameter in weights.places():
            found = part(whole, parameter)
            assert torch.equal(found, entry.view(whole))
            assert found.shape == parameter.shape
            assert found.stride() == parameter.stride()
    copied = weights.flat[: weights.trained].clone()
    for parameter in weights.trainable():
        assert torch.equal(part(copied, parameter), parameter)
        part(copied, parameter).fill_(7.0)
        assert (part(copied, parameter) == 7.0).all()


def test_the_optimizer_has_the_parameters_that_train_in_their_vector() -> None:
    module = Mixed()
    site = make_site(module)
    (group,) = site.optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in module.parameters() if p.requires_grad]
    module.norm.weight.grad = torch.ones(3)
    before = site.weights.flat.clone()
    site.optimizer.step()
    changed = site.weights.flat != before
    assert int(changed.sum()) == 3
    assert part(changed[: site.weights.trained].float(), module.norm.weight).all()


def test_the_bound_is_that_of_its_own_stage() -> None:
    assert [make_site(staleness=(5, 2, 0), stage=k, micro_batches=2).bound for k in range(3)] == [3, 1, 0]
    assert make_site(schedule=gpipe(2, 4), stage=0).bound == 0
    assert make_site(schedule=Schedule((3, 1), 4, delay=1), stage=1).bound == 1
