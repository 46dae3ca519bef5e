"""A small task, and runs of it in any shape."""

from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.stages import OptimizerFactory
from tests.cases import build

UPDATES = 11


def net() -> nn.Module:
    """Return layers with batch normalisation, which cut anywhere, and no draws, which are keyed by the stage."""

    def make() -> nn.Module:
        first, second = [nn.Linear(6, 8), nn.BatchNorm1d(8)], [nn.Linear(8, 8), nn.BatchNorm1d(8)]
        return nn.Sequential(*first, nn.ReLU(), *second, nn.Tanh(), nn.Linear(8, 3))

    return build(make)


class Shared(nn.Module):
    """A parameter of two stages, frozen ones, and a buffer that no state dict has."""

    hidden: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.a, self.norm, self.b = nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 6)
        self.frozen, self.c, self.d = nn.Linear(6, 6), nn.Linear(6, 6), nn.Linear(6, 3)
        self.c.weight = self.a.weight
        self.frozen.requires_grad_(False)
        self.register_buffer("hidden", torch.zeros(6), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.b(self.norm(torch.tanh(self.a(x)))))
        h = torch.tanh(h + self.frozen(h))
        if self.training:
            with torch.no_grad():
                self.hidden.add_(h.mean(0))
        y: Tensor = self.d(torch.tanh(self.c(h)) + 0.01 * self.hidden)
        return y


def data(samples: int = 40) -> TensorDataset:
    draw = torch.Generator().manual_seed(5)
    x = torch.randn(samples, 6, generator=draw)
    return TensorDataset(x, torch.randint(0, 3, (samples,), generator=draw))


def muon_and_adamw(named_parameters: Any) -> torch.optim.Optimizer:
    muon, adamw = partial(torch.optim.Muon, lr=0.01), partial(torch.optim.AdamW, lr=0.02)
    return stalegrid.by_name({_is_matrix: muon}, rest=adamw)(named_parameters)


def _is_matrix(name: str, parameter: nn.Parameter) -> bool:
    return parameter.dim() == 2


OPTIMIZERS: dict[str, OptimizerFactory] = {
    "sgd": partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01),
    "adamw": partial(torch.optim.AdamW, lr=0.02, amsgrad=True),
    "muon and adamw": muon_and_adamw,
}
SCHEDULES: dict[str, Any] = {
    "constant": None,
    "cosine": partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=UPDATES),
}


def train(out: Path, model: nn.Module | None = None, samples: Any = None, **changes: Any) -> stalegrid.Result:
    """Train on the simulator, with a checkpoint every other update."""
    options: dict[str, Any] = {
        "loss": nn.CrossEntropyLoss(),
        "optimizer": OPTIMIZERS["sgd"],
        "method": "1f1b",
        "micro_batches": 1,
        "batch_size": 4,
        "updates": UPDATES,
        "seed": 3,
        "test": data(8),
        "engine": "simulator",
        "quiet": True,
        "checkpoint": stalegrid.CheckpointSettings(every=2, keep=100),
        "output": stalegrid.OutputSettings(folder=out, log_every=1),
    }
    own, samples = net() if model is None else model, data() if samples is None else samples
    return stalegrid.train(own, samples, **(options | changes))


def at(run: Path, version: int) -> Path:
    """Return the folder of a checkpoint."""
    return run / "checkpoints" / f"{version:09d}"


def check_equal(one: nn.Module, other: nn.Module) -> None:
    """Hold two models equal, bit for bit, what their state dicts leave out included."""
    for (name, a), (_, b) in zip(
        [*one.named_parameters(), *one.named_buffers()],
        [*other.named_parameters(), *other.named_buffers()],
        strict=True,
    ):
        assert torch.equal(a, b), name
