"""Models drawn at random from what people do, held against a plain torch loop, and engine against engine."""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.data import Batches
from stalegrid.engines.settings import EngineSettings
from tests import cases

pytestmark = pytest.mark.thorough

torch.set_num_threads(1)

WIDTH, BATCH, UPDATES = 6, 4, 5


class Sometimes(nn.Linear):
    """Only some batches use its parameters; the others leave them without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x[0, 0] > 0 else x * 0.5


class Masked(nn.Linear):
    """Attends over its features, with infinities in a constant."""

    def __init__(self, width: int, place: str) -> None:
        super().__init__(width, width)
        mask = torch.triu(torch.full((width, width), -math.inf), 1)
        if place == "frozen":
            self.mask = nn.Parameter(mask, requires_grad=False)
        elif place == "attribute":
            self.mask = mask
        else:
            self.register_buffer("mask", mask, persistent=place == "buffer")

    def forward(self, x: Tensor) -> Tensor:
        scores = super().forward(x).unsqueeze(2) * x.unsqueeze(1) + self.mask
        return (torch.softmax(scores, -1) @ x.unsqueeze(2)).squeeze(2)


class KeptStill(nn.Module):
    """Batch normalisation that its own train() keeps in evaluation, between trained layers."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.linear = nn.BatchNorm1d(width), nn.Linear(width, width)
        self.norm.running_var.fill_(2.0)

    def train(self, mode: bool = True) -> "KeptStill":
        super().train(mode)
        self.norm.eval()
        return self

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.norm(x))


def hooked(width: int) -> nn.Module:
    layer = nn.Linear(width, width)
    layer.weight.register_hook(lambda gradient: gradient.clamp(-0.01, 0.01))
    layer.bias.register_post_accumulate_grad_hook(_halve)
    layer.register_forward_pre_hook(_scale)
    return layer


def _halve(parameter: Tensor) -> None:
    assert parameter.grad is not None
    parameter.grad.mul_(0.5)


def _scale(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0] * 0.5,)


def marked(width: int) -> nn.Module:
    layer = nn.Linear(width, width)
    layer.weight.fast = True
    return layer


BLOCKS: dict[str, Callable[[int], nn.Module]] = {
    "linear": lambda width: nn.Linear(width, width),
    "frozen": lambda width: nn.Linear(width, width).requires_grad_(False),
    "half frozen": lambda width: _half(nn.Linear(width, width)),
    "sometimes": lambda width: Sometimes(width, width),
    "norm": nn.BatchNorm1d,
    "kept still": KeptStill,
    "hooked": hooked,
    "marked": marked,
    **{f"masked, {place}": partial(Masked, place=place) for place in ("buffer", "unsaved", "frozen", "attribute")},
}


def _half(layer: nn.Linear) -> nn.Linear:
    layer.weight.requires_grad_(False)
    return layer


def by_marks(parameters: list[nn.Parameter], kind: str) -> Optimizer:
    fast = [p for p in parameters if getattr(p, "fast", False)]
    rest = [p for p in parameters if not getattr(p, "fast", False)]
    groups = [{"params": fast, "lr": 0.2}, {"params": rest}]
    return SGD(groups, 0.05, 0.9, weight_decay=0.1) if kind == "sgd" else AdamW(groups, 0.01)


def build(names: list[str], dtype: torch.dtype) -> nn.Module:
    torch.manual_seed(1)
    blocks = [nn.Sequential(BLOCKS[name](WIDTH), nn.Tanh()) for name in names]
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), *blocks, nn.Linear(WIDTH, 3)).to(dtype)


def data_of(dtype: torch.dtype) -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(32, WIDTH, generator=draw).to(dtype), torch.randint(3, (32,), generator=draw))


def plain(names: list[str], dtype: torch.dtype, optimizer: Callable[[list[nn.Parameter]], Optimizer]) -> nn.Module:
    """Train as any torch user would."""
    model, loss = build(names, dtype).train(), nn.CrossEntropyLoss()
    batches = Batches(data_of(dtype), groups=1, batch_size=BATCH, seed=0)
    made = optimizer([p for p in model.parameters() if p.requires_grad])
    for n in range(UPDATES):
        made.zero_grad()
        loss(model(*batches.inputs(0, n)), batches.targets(0, n)).backward()
        made.step()
    return model


def train(names: list[str], dtype: torch.dtype, optimizer: Any, **settings: Any) -> nn.Module:
    """Train with this library; cut before the last layer, and before the first block for three stages."""
    last = str(len(names) + 1)
    cuts = {1: [], 2: [last], 3: ["1", last]}[settings.get("stages", 1)]
    return cases.train(
        build(names, dtype),
        data_of(dtype),
        loss=nn.CrossEntropyLoss(),
        optimizer=optimizer,
        batch_size=BATCH,
        updates=UPDATES,
        quiet=True,
        **{"engine": "simulator", "cuts": cuts, **settings} if cuts else {"engine": "simulator", **settings},
    ).model


def same(one: nn.Module, other: nn.Module) -> bool:
    """Return whether parameters and buffers have the same bits and types; NaN would not."""
    pairs = zip(_tensors(one).items(), _tensors(other).items(), strict=True)
    return all(a[0] == b[0] and a[1].dtype == b[1].dtype and torch.equal(a[1], b[1]) for a, b in pairs)


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


drawn = given(
    names=st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    kind=st.sampled_from(["sgd", "adamw"]),
)
calm = {"deadline": None, "derandomize": True, "phases": [Phase.generate], "suppress_health_check": list(HealthCheck)}


def trains_something(names: list[str]) -> bool:
    return any(name not in ("frozen", "sometimes", "norm") for name in names)


@settings(max_examples=16, **calm)
@drawn
def test_every_way_without_staleness_is_the_plain_loop(names: list[str], dtype: torch.dtype, kind: str) -> None:
    optimizer = partial(by_marks, kind=kind)
    expected = plain(names, dtype, optimizer)
    ways: list[dict[str, Any]] = [
        {"method": "sgd"},
        {"method": "1f1b", "groups": 1, "stages": 2, "micro_batches": 1},
        {"method": "pham-ahn", "groups": 1, "stages": 2, "staleness": [0, 0]},
        {"method": "hardsync", "learners": 1},
    ]
    if trains_something(names):
        ways.append({"method": "dsp", "groups": 1, "stages": 3, "staleness": [0, 0, 0]})
    for way in ways:
        assert same(train(names, dtype, optimizer, **way), expected), way


@settings(max_examples=4, **calm)
@drawn
def test_processes_are_the_simulator(names: list[str], dtype: torch.dtype, kind: str) -> None:
    optimizer = partial(by_marks, kind=kind)
    way = {"method": "pham-ahn", "groups": 2, "stages": 2}
    made = train(names, dtype, optimizer, **way)
    assert same(
        made, train(names, dtype, optimizer, **way, engine=EngineSettings(kind="processes", processes=2, deadline=60.0))
    )
    assert all(p.isfinite().all() for p in made.parameters() if p.requires_grad)


class Centres(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.centres = nn.Parameter(torch.ones(3, 3))

    def forward(self, y: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.cross_entropy(-torch.cdist(y, self.centres.to(y.dtype)), targets)


@settings(max_examples=5, **calm)
@drawn
def test_parameters_of_the_loss_are_never_left_untrained(names: list[str], dtype: torch.dtype, kind: str) -> None:
    for way in ({"method": "sgd"}, {"method": "pipedream", "groups": 1, "stages": 2}, {"method": "asgd"}):
        with pytest.raises(stalegrid.ConfigError, match="centres of the loss"):
            cases.train(
                build(names, dtype),
                data_of(dtype),
                loss=Centres(),
                optimizer=partial(by_marks, kind=kind),
                engine="simulator",
                batch_size=BATCH,
                updates=2,
                quiet=True,
                **way,
                **({"cuts": [str(len(names) + 1)]} if "stages" in way else {}),
            )
