"""What Python keeps on one side of a cut and reads on the other is refused; what stays in one stage is not."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.partition.cutting import partition

torch.set_num_threads(1)


def noise(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Warm(nn.Module):
    """Multiplies by more and more, until it has been called often enough."""

    def __init__(self, calls: int = 6) -> None:
        super().__init__()
        self.calls = calls
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x * min(1.0, self.n / self.calls)


class Scale(nn.Module):
    """Changes a number of its own after some batches."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0
        self.scale = 1.0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        if self.n > 3:
            self.scale = 0.5
        return x


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 3), nn.Linear(3, 3)


class BothSides(Net):
    def __init__(self) -> None:
        super().__init__()
        self.warm = Warm()

    def forward(self, x: Tensor) -> Tensor:
        return self.warm(self.b(self.warm(self.a(x))))


class Writes(nn.Linear):
    shared: Any

    def forward(self, x: Tensor) -> Tensor:
        self.shared["n"] = self.shared.get("n", 0) + 1
        return super().forward(x)


class Reads(nn.Linear):
    shared: Any

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) / self.shared["n"]


class SharedDictionary(Net):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = Writes(3, 3), Reads(3, 3)
        self.a.shared = self.b.shared = {}

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


class ReadFromOutside(Net):
    def __init__(self) -> None:
        super().__init__()
        self.gate = Scale()

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.gate(self.a(x))) * self.gate.scale


class Peeks(nn.Linear):
    other: Any

    def forward(self, x: Tensor) -> Tensor:
        assert bool(x.isfinite().all())  # which cannot be traced, so that the module is kept whole
        return super().forward(x) + self.other[0].detach().sum()


class PastTheParameters(Net):
    """The second layer reads a parameter of the first one that is none of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.b = Peeks(3, 3)
        self.b.other = [self.a.weight]

    def forward(self, x: Tensor) -> Tensor:
        return self.b(self.a(x))


# Where nothing is said, costs that are measured decide between places: only the last one has no other.
@pytest.mark.parametrize(
    ("model", "cuts"),
    [
        (BothSides, ["b"]),
        (SharedDictionary, ["b"]),
        (ReadFromOutside, ["b"]),
        (PastTheParameters, ["b"]),
        (PastTheParameters, None),
    ],
)
def test_what_python_keeps_across_a_cut_is_refused(model: type[nn.Module], cuts: list[str] | None) -> None:
    with pytest.raises(ConfigError, match=r"compute something else than the model \(cuts: b, .* keep it in a buffer"):
        partition(model(), (noise(2, 3),), 2, cuts)


class OneSide(Net):
    """A counter, dropout and running statistics, each within one stage."""

    def __init__(self) -> None:
        super().__init__()
        self.warm, self.drop, self.norm = Warm(), nn.Dropout(0.5), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.warm(self.drop(self.a(x)))
        return self.norm(self.drop(self.b(h.relu())))


def test_what_stays_in_one_stage_is_welcome_and_the_model_is_left_as_it_is() -> None:
    model = OneSide()
    before = copy.deepcopy(model.state_dict())
    assert partition(model, (noise(4, 3),), 2, ["b"]).names == ("b",)
    assert model.warm.n == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Counted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("n", torch.zeros(()))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        self.n += 1
        return x, self.n.clone()


class Remedied(Net):
    """The number is in a buffer of one stage, and crosses the cut as a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.count = Counted()

    def forward(self, x: Tensor) -> Tensor:
        h, n = self.count(self.a(x))
        return self.b(h) / n


def test_the_remedy_works() -> None:
    assert partition(Remedied(), (noise(2, 3),), 2, ["b"]).names == ("b",)
