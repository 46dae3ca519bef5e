"""Models as people write them, cut into stages: at staleness 0 they train as in one piece, bit for bit."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.errors import ConfigError
from stalegrid.programs.settings import GridSettings
from tests import cases

torch.set_num_threads(1)

FEATURES, CLASSES, UPDATES = 6, 3, 4


def data() -> TensorDataset:
    drawn = torch.Generator().manual_seed(0)
    x = torch.randn(32, FEATURES, generator=drawn) * 3 + 1
    return TensorDataset(x, torch.randint(0, CLASSES, (32,), generator=drawn))


def loss(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs.float(), targets)


def train(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor] = loss, **settings: Any) -> list[Tensor]:
    made = cases.train(
        copy.deepcopy(model),
        data(),
        loss=loss,
        batch_size=8,
        updates=UPDATES,
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
        quiet=True,
        **{"engine": "simulator", **settings},
    )
    return list(made.model.state_dict().values())


class Frozen(nn.Module):
    """Normalisation in evaluation mode and dropout off, whatever mode is asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, 8)
        self.drop, self.c = nn.Dropout(0.5), nn.Linear(8, FEATURES)

    def train(self, mode: bool = True) -> "Frozen":
        super().train(mode)
        self.norm.eval()
        self.drop.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.c(self.drop(torch.tanh(self.b(self.norm(self.a(x))))))


class Options(nn.Module):
    """Arguments that nobody gives, and sizes read and checked at the top."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(FEATURES, 8), nn.Linear(8, 8), nn.Linear(8, CLASSES)

    def forward(self, x: Tensor, mask: Tensor | None = None, features: bool = False) -> Tensor:
        if x.shape[1] != FEATURES:
            raise ValueError(x.shape)
        rows, _ = x.shape
        h = torch.relu(self.a(x))
        if mask is not None:
            h = h * mask
        h = torch.relu(self.b(h))
        return h if features else self.c(h).view(rows, CLASSES)


class Mixed(nn.Linear):
    """Mixed precision inside, and a result of half the size."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            return torch.tanh(super().forward(x))


class Force(nn.Module):
    """The gradient of an energy with respect to the input."""

    def __init__(self) -> None:
        super().__init__()
        self.energy = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        return torch.autograd.grad(self.energy(x).sum(), x, create_graph=True)[0]


def hooked() -> nn.Module:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Linear(8, 8), nn.Linear(8, CLASSES))
    for module in model.modules():
        module.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
        module.register_forward_hook(lambda m, args, made: made + 0.1)
    return model


MODELS: dict[str, tuple[Callable[[], nn.Module], list[str]]] = {
    "frozen": (Frozen, ["norm", "b"]),
    "frozen inside": (lambda: nn.Sequential(Frozen(), nn.Linear(FEATURES, CLASSES)), ["0.b", "1"]),
    "options": (Options, ["b", "c"]),
    "mixed": (lambda: nn.Sequential(Mixed(FEATURES, 8), Mixed(8, 8), Mixed(8, CLASSES)), ["1", "2"]),
    "force": (lambda: nn.Sequential(Force(), nn.Linear(FEATURES, 8), nn.Linear(8, CLASSES)), ["1", "2"]),
    "hooked": (hooked, ["2", "3"]),
}


@pytest.mark.parametrize("name", MODELS)
def test_in_several_stages_as_in_one(name: str) -> None:
    torch.manual_seed(0)
    make, cuts = MODELS[name]
    model = make()
    whole = train(model, method="sgd")
    assert any(not torch.equal(a, b) for a, b in zip(whole, model.state_dict().values(), strict=True))
    for stages in (2, 3):
        for method in ("1f1b", "dsp"):
            exact = {"micro_batches": 1} if method == "1f1b" else {"staleness": [0] * stages}
            made = train(
                model, method=method, groups=1, stages=stages, **exact, grid=GridSettings(cuts=cuts[: stages - 1])
            )
            assert all(torch.equal(a, b) for a, b in zip(whole, made, strict=True)), (stages, method)


def test_learners_keep_modes_of_the_models_own_too() -> None:
    torch.manual_seed(0)
    model = Frozen()
    made = train(model, method="hardsync", learners=1)
    assert all(torch.equal(a, b) for a, b in zip(train(model, method="sgd"), made, strict=True))


@pytest.mark.parametrize("settings", [{"method": "sgd"}, {"method": "dsp", "stages": 2}, {"method": "hardsync"}])
def test_modes_set_by_hand_are_said_to_be_undone(settings: dict[str, Any]) -> None:
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.BatchNorm1d(8), nn.Linear(8, CLASSES))
    model[1].eval()
    with pytest.warns(UserWarning, match=r"\(parts: 1\); override train\(\)") as said:
        train(model, **settings)
    assert len(said) == 1


def test_hooks_on_the_gradients_of_modules_act_on_late_backwards_and_in_stages() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(FEATURES, 8), nn.Tanh(), nn.Sequential(nn.Linear(8, CLASSES), nn.Softplus()))
    late: dict[str, Any] = {"method": "pham-ahn", "groups": 1, "stages": 1, "staleness": [2]}
    cut: dict[str, Any] = {"method": "pipedream", "groups": 1, "stages": 2, "cuts": ["2"]}

    def trained(loss: Callable[[Tensor, Tensor], Tensor]) -> list[Tensor]:
        return [parameter for settings in (late, cut) for parameter in train(model, loss, **settings)]

    doubled = trained(lambda outputs, targets: 2 * loss(outputs, targets))
    plain = trained(loss)
    model[2].register_full_backward_pre_hook(lambda m, gradients: (2 * gradients[0],))
    assert all(torch.equal(a, b) for a, b in zip(doubled, trained(loss), strict=True))
    model[1].register_full_backward_hook(lambda m, into, out: (0.5 * into[0],))
    halved = trained(loss)
    assert not any(torch.equal(a, b) for a, b in zip(plain, halved, strict=True))


class Replacing(nn.Linear):
    def __init__(self) -> None:
        super().__init__(FEATURES, CLASSES)
        self.register_buffer("scale", torch.ones(2), persistent=False)

    def forward(self, x: Tensor) -> Any:
        if len(self.scale) < FEATURES:
            self.scale = torch.linspace(1, 2, FEATURES)
        return super().forward(x * self.scale)


@pytest.mark.parametrize("settings", [{"method": "sgd"}, {"method": "hardsync"}, {"method": "softsync"}])
def test_what_cannot_be_trained_is_refused_for_grids_and_for_learners(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"replaces a buffer.*buffer: scale"):
        train(Replacing(), **settings)
    kept = nn.Sequential(nn.Linear(FEATURES, CLASSES))
    kept[0].last = kept[0].weight * 2
    with pytest.raises(ConfigError, match=r"attribute: 0\.last"):
        cases.train(kept, data(), loss=loss, optimizer=torch.optim.SGD, batch_size=8, quiet=True, **settings)


SCRIPT = """
import torch
from torch import nn
from torch.utils.data import TensorDataset
import stalegrid

@torch.fx.wrap
def gate(h):
    return h * 2 if h.mean() > 0 else h

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)
        self.scale = torch.linspace(0, 1, 8)
    def train(self, mode=True):
        super().train(mode)
        self.norm.eval()
        return self
    def forward(self, x, mask=None):
        h = self.a(x) if mask is None else x
        return self.b(gate(torch.tanh(self.norm(h * self.scale)) + torch.arange(x.shape[0])[:, None]))

torch.manual_seed(0)
model = Net()
model.register_forward_pre_hook(lambda m, args: (args[0] * 0.5,))
data = TensorDataset(torch.randn(32, 6), torch.arange(32) % 3)
made = [
    stalegrid.train(
        model, data, loss=nn.CrossEntropyLoss(), method="pipedream", stages=2, batch_size=8, updates=4,
        grid=stalegrid.GridSettings(cuts=["gate"]),
        optimizer=lambda p: torch.optim.SGD(p, lr=0.1), engine=engine, quiet=True).model.state_dict()
    for engine in ("simulator", "processes")]
assert all(torch.equal(a, b) for a, b in zip(made[0].values(), made[1].values()))
assert not torch.equal(made[0]["a.weight"], model.a.weight)
assert made[0]["norm.num_batches_tracked"] == 0
"""


def test_a_script_with_functions_of_its_own_gives_the_same_bits_on_every_engine(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    made = subprocess.run(
        [sys.executable, str(script)], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
