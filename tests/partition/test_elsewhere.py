"""What a model does otherwise on the device of its training must not pass in silence; here the CPU stands for it."""

import dataclasses
import warnings
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid.errors import ConfigError
from stalegrid.objects import Form
from stalegrid.partition import regions
from stalegrid.partition.cutting import Partition, partition
from stalegrid.partition.elsewhere import check_on

CPU = torch.device("cpu")
X = torch.linspace(-1, 1, 24).view(3, 8)


class Net(nn.Module):
    """Does something in the middle that may depend on where it is."""

    def __init__(self, there: list[str]) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.there = there

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(self.middle(self.a(x)))))

    def middle(self, h: Tensor) -> Tensor:
        match self.there[0]:
            case "there":
                return h * 2
            case "half":
                return h.bfloat16().float() * 2
            case "noise":
                return h * (2 + float(torch.empty(1).uniform_(generator=NOISE)))
            case "round":
                h.register_hook(lambda g: g * (1 + 2**-20))
            case "full":
                raise torch.OutOfMemoryError("CUDA out of memory")
        return h


NOISE = torch.Generator()


def cut(there: list[str]) -> tuple[Net, Partition]:
    torch.manual_seed(0)
    model = Net(there)
    return model, partition(model, (X,), 2, ["b"])


def test_a_model_that_does_the_same_everywhere_is_taken() -> None:
    model, made = cut(["here"])
    before = {name: t.clone() for name, t in model.state_dict().items()}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_on(CPU, model, made, (X,))
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())


class Named(Net):
    """Takes its inputs by name."""

    def forward(self, *, y: Tensor, x: Tensor) -> Tensor:
        return super().forward(x + y)


def test_a_model_is_called_as_it_wants_to_be() -> None:
    form, inputs = Form.split(((), {"x": X, "y": X * 2}))
    model = Named(["here"])
    check_on(CPU, model, partition(model, inputs, 2, ["b"], form), inputs, form)


@pytest.mark.parametrize("there", ["there", "half"])
def test_a_model_that_does_something_else_there_is_refused(there: str) -> None:
    model, made = cut(["here"])
    model.there = [there]
    with pytest.raises(ConfigError, match=r"\(device: cpu, cuts: b, batch: 0\): its outputs differ; let its forward"):
        check_on(CPU, model, made, (X,))


def test_another_type_at_a_cut_is_refused() -> None:
    model, made = cut(["here"])
    (layout,) = made.layouts
    (crossing,) = layout
    planned = dataclasses.replace(made, layouts=((dataclasses.replace(crossing, dtype=torch.bfloat16),),))
    with pytest.raises(
        ConfigError, match=r"other types cross the cut at b \(found: \[torch.float32\], due: \[torch.bf"
    ):
        check_on(CPU, model, planned, (X,))


@pytest.mark.parametrize(
    ("there", "told"),
    [
        ("noise", "on cpu the model computes something else each time, so its stages were held against it on the CPU"),
        ("full", "on cpu the model does not fit as a whole, so its stages were held against it on the CPU alone"),
        ("round", r"on cpu the gradient of a\.\w+ differs, by rounding, from that of the model as a whole"),
    ],
)
def test_what_cannot_be_held_there_is_told(there: str, told: str) -> None:
    model, made = cut(["here"])
    model.there = [there]
    with pytest.warns(UserWarning, match=told):
        check_on(CPU, model, made, (X,))


@pytest.mark.parametrize(
    ("captured", "kind", "meant"),
    [
        ("cpu", "cpu", "cpu"),
        ("cpu", "cuda", "cuda"),
        ("cuda", "cpu", "cuda"),
        ("cpu", "meta", "cpu"),
        ("cpu", None, "cpu"),
    ],
)
def test_autocast_that_was_captured_on_the_cpu_follows_the_tensors(
    captured: str, kind: str | None, meant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Any] = []
    monkeypatch.setattr(torch, "autocast", lambda *given, **more: opened.append(given))
    tensors = [] if kind is None else [SimpleNamespace(device=torch.device(kind))]
    monkeypatch.setattr(regions, "tensors_in", lambda given: tensors)
    regions.Autocast(captured, torch.bfloat16, True)(())
    assert opened == [(meant, torch.bfloat16, True)]
