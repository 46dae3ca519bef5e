"""Stages with a forward for each shape: one module, whose copies keep together what the forwards share."""

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError, TrainingError
from stalegrid.objects import copied
from stalegrid.partition import partition
from stalegrid.partition.apart import check_apart
from stalegrid.partition.chain import mark
from stalegrid.partition.shaped import Shaped

torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Uses a layer for long inputs only, and for short ones a weight of a layer that it calls for all."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.long = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        long = x.shape[0] > 3
        x = self.a(x) + torch.full((4,), float(x.shape[0]))
        x = self.long(x) if long else x * self.b[0].weight.sum()
        return self.b(x)


BATCHES = [(noise(n, 4),) for n in (2, 3, 5)]


def test_each_shape_has_a_forward_of_its_own_over_the_same_parameters() -> None:
    model = Net()
    cut = partition(model, BATCHES[0], 2, ["add"], more=BATCHES[1:])
    assert cut.shapes == ((torch.Size((2, 4)),), (torch.Size((3, 4)),), (torch.Size((5, 4)),))
    assert [layout[0].shape for layout in cut.crossing(0)] == [(2, 4), (3, 4), (5, 4)]
    assert [v.operations.shapes for v in cut.variants] == list(cut.shapes)
    stages = cut.stages(model)
    assert all(isinstance(stage, Shaped) for stage in stages)
    assert [sorted(dict(stage.named_parameters())) for stage in stages] == [
        ["a.bias", "a.weight"],
        ["b.0.bias", "b.0.weight", "b.1.bias", "b.1.weight", "long.bias", "long.weight"],
    ]
    whole = copied(model)
    for (x,) in BATCHES:
        assert torch.equal(stages[1](*stages[0](x)), whole(x))
    assert int(stages[1].get_buffer("b.1.num_batches_tracked")) == 3
    check_apart(model, stages, cut.names, BATCHES)


def test_a_copy_shares_nothing_with_what_was_copied_and_all_within() -> None:
    model = Net()
    stage = partition(model, BATCHES[0], 2, ["add"], more=BATCHES[1:]).stages(model)[1]
    own = copied(stage)
    with torch.no_grad():
        for parameter in own.parameters():
            parameter.zero_()
    crossing = [(*batch, mark(kind)) for kind, batch in enumerate(BATCHES)]
    assert all(not own(*given).any() for given in crossing)
    assert all(stage(*given).any() for given in crossing)
    assert all(tensor.device.type == "meta" for tensor in own.to("meta").state_dict().values())


def test_another_shape_is_refused() -> None:
    model = Net()
    first, second = partition(model, BATCHES[0], 2, ["add"], more=BATCHES[1:]).stages(model)
    with pytest.raises(TrainingError, match=r"\(shape: \(4, 4\), cut for: \(2, 4\); \(3, 4\); \(5, 4\)\); let all"):
        first(noise(4, 4))
    with pytest.raises(TrainingError, match=r"another shape than the model was cut for"):
        second(noise(4, 4), mark(0))


def test_a_model_that_does_not_take_a_shape_or_returns_other_trees_is_refused() -> None:
    class Other(Net):
        def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:  # type: ignore[override]
            y = super().forward(x)
            return (y, y) if x.shape[0] == 3 else y

    with pytest.raises(ConfigError, match=r"another shape .*shape: \(2, 5\)\): the m"):
        partition(Net(), BATCHES[0], 2, ["add"], more=[(noise(2, 5),)])
    with pytest.raises(ConfigError, match="returns is made otherwise for batches of another shape"):
        partition(Other(), BATCHES[0], 2, ["add"], more=BATCHES[1:])


class Exported(nn.Module):
    """torch.fx follows no branch on a tensor's device; torch.export does, and has constants."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        table = torch.tensor([[float(i)] for i in range(len(x))])
        h = self.a(x) + (table if x.device.type == "cpu" else 0)
        return self.b(h) / torch.tensor([len(x), 2.0, 3.0, 4.0])


def test_what_torch_export_captures_has_constants_for_each_shape() -> None:
    model = Exported()
    cut = partition(model, BATCHES[0], 2, ["b"], more=BATCHES[1:])
    assert cut.captured == "torch.export"
    stages = cut.stages(model)
    for (x,) in BATCHES:
        assert torch.equal(stages[1](*stages[0](x)), model(x))


def test_all_shapes_are_captured_in_one_way() -> None:
    class Long(Net):
        def forward(self, x: Tensor) -> Tensor:
            long = x.shape[0] > 3
            h = self.a(x)
            return self.b(h + 1 if long and h.device.type == "cpu" else h)

    short, _, long = BATCHES
    for first, other in ((short, long), (long, short)):
        model = Long()
        cut = partition(model, first, 2, ["b"], more=[other])
        assert cut.captured == "torch.export"
        below, above = cut.stages(model)
        assert all(torch.equal(above(*below(*batch)), copied(model)(*batch)) for batch in (first, other))
    assert partition(Long(), short, 2, ["b"], more=[(noise(3, 4),)]).captured == "torch.fx"
