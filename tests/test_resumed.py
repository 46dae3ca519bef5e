"""Runs that go on from every save of an uninterrupted one, held against it: models, losses, optimizers as people write
them, that keep what they remember in odd places; virtual time; streams."""

import json
import shutil
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import cross_entropy
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import IterableDataset, TensorDataset

import stalegrid
from stalegrid.errors import ConfigError
from stalegrid.observe.trace import read_trace
from stalegrid.timing.costs import Cost, CostTable

X = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
Y = torch.arange(24) % 3
DATA = TensorDataset(X, Y)
REAL = ("seconds", "samples_per_second", "shares")
STALE = stalegrid.MethodSettings(name="pham-ahn", staleness=[3, 1])


def sgd(parameters: Any) -> SGD:
    return SGD(parameters, lr=0.05, momentum=0.9)


def net(*parts: nn.Module) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8), *parts, nn.ReLU(), nn.Linear(8, 3))


def start(out: Path, model: nn.Module, data: Any = DATA, **more: Any) -> None:
    asked: dict[str, Any] = {
        "loss": cross_entropy,
        "optimizer": sgd,
        "test": DATA,
        "method": STALE,
        "stages": 2,
        "batch_size": 4,
        "updates": 9,
        "engine": "simulator",
        "output": stalegrid.OutputSettings(log_every=2, evaluate_every=0.5, loggers=[]),
        "checkpoint": stalegrid.CheckpointSettings(every=3, keep=9),
        "quiet": True,
    } | more
    asked["output"] = replace(asked["output"], folder=out)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stalegrid.train(model, data, **asked)


def read(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [*lines, json.loads((folder / "summary.json").read_text())]
    return [{k: v for k, v in record.items() if k not in REAL} for record in found]


def check(folder: Path, make: Callable[[], dict[str, Any]]) -> None:
    """Hold a run against those that go on from each of its saves, all made anew."""
    whole, part = folder / "whole", folder / "part"
    start(whole, **make())
    saves = sorted(path for path in (whole / "checkpoints").iterdir() if path.is_dir())
    assert saves
    for save in saves:
        shutil.rmtree(part, ignore_errors=True)
        shutil.copytree(whole, part)
        start(part, **make(), resume=part / "checkpoints" / save.name)
        assert read(part) == read(whole)
        for file in whole.glob("*.safetensors"):
            before, after = load_file(file), load_file(part / file.name)
            assert before.keys() == after.keys()
            assert all(torch.equal(before[key], after[key]) for key in before)


class Holder:
    """A user's own plain object."""

    def __init__(self) -> None:
        self.n = 0


class Counting(nn.Module):
    """Keeps what it remembers as Python does."""

    def __init__(self) -> None:
        super().__init__()
        self.n, self.seen, self.last = 0, [0.0], deque([torch.zeros(8)], maxlen=2)
        self.mean: Tensor | None = None
        self.held, self.draws = Holder(), torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        self.held.n += 2
        self.seen.append(float(x.detach().mean()))
        now = x.detach().mean(0)
        self.mean = now if self.mean is None else self.mean * 0.9 + now * 0.1
        self.last.append(self.mean)
        drawn = torch.rand((), generator=self.draws)
        return x * (1 + 0.01 * self.n + 0.01 * self.held.n + sum(self.seen[-3:])) + self.last[0] + 0.1 * drawn


class Numbered(nn.Module):
    """Counts its forwards, those of evaluations too."""

    def __init__(self) -> None:
        super().__init__()
        self.n = 0

    def forward(self, x: Tensor) -> Tensor:
        self.n += 1
        return x * (1 + 0.01 * self.n)


class Weighing(nn.Module):
    """A loss with a buffer that it replaces and a plain counter."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", None)
        self.n = 0

    def forward(self, outputs: Tensor, targets: Tensor) -> Tensor:
        loss = cross_entropy(outputs, targets)
        self.n += 1
        self.mean = loss.detach() if self.mean is None else self.mean * 0.9 + loss.detach() * 0.1
        return loss * self.mean * (1 + 0.01 * self.n)


def closing() -> Callable[[Tensor, Tensor], Tensor]:
    n, seen = 0, []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        nonlocal n
        n += 1
        seen.append(n)
        return cross_entropy(outputs, targets) * (1 + 0.01 * n + 0.01 * len(seen))

    return loss


def listing(seen: list[int], outputs: Tensor, targets: Tensor) -> Tensor:
    seen.append(1)
    return cross_entropy(outputs, targets) * (1 + 0.01 * len(seen))


class Attributes(SGD):
    """An optimizer that keeps more than its state: by parameter, by its number, in an object, beside."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, lr=0.05)
        self.means: dict[Any, Tensor] = {}
        self.numbered: dict[int, Tensor] = {}
        self.held = Holder()

    def step(self, closure: Any = None) -> Any:
        self.held.n += 1
        self.state["steps"] = self.state.get("steps", 0) + 1
        for group in self.param_groups:
            group["lr"] = 0.05 / (self.held.n + self.state["steps"])
            for p in group["params"]:
                self.means[p] = self.means.get(p, 0) + p.grad
                self.numbered[id(p)] = self.numbered.get(id(p), 0) + p.grad
                p.grad += 0.1 * self.means[p] + 0.1 * self.numbered[id(p)]
        return super().step(closure)


def hooked(parameters: Any) -> SGD:
    made, steps = sgd(parameters), [0]

    def hook(optimizer: Any, *_: Any) -> None:
        steps[0] += 1
        optimizer.param_groups[0]["lr"] = 0.05 / steps[0]

    made.register_step_pre_hook(hook)
    return made


class Factor:
    """A rate that falls with every call."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, epoch: int) -> float:
        self.calls += 1
        return float(0.95**self.calls)


def falling(optimizer: Any) -> LambdaLR:
    calls = 0

    def factor(epoch: int) -> float:
        nonlocal calls
        calls += 1
        return float(0.95**calls)

    return LambdaLR(optimizer, factor)


class Keeping(stalegrid.Correction):
    """Keeps clones, views of the weights, an optimizer of its own, and what it met by parameter."""

    def __init__(self, site: Any) -> None:
        super().__init__(site)
        weights = site.weights.trainable()
        self.first, self.views = [p.detach().clone() for p in weights], [p.detach() for p in weights]
        self.own = torch.zeros(1, requires_grad=True)
        self.inner = SGD([self.own], lr=0.1, momentum=0.9)
        self.met: dict[Any, Tensor] = {}

    def correct(self, update: Any) -> None:
        self.own.grad = torch.ones(1)
        self.inner.step()
        for p, first, view in zip(self.site.weights.trainable(), self.first, self.views, strict=True):
            first.lerp_(p.detach(), 0.1)
            self.met[p] = self.met.get(p, 0) + p.grad
            p.grad += 0.01 * (first + view) + 0.1 * self.met[p] * (1 + self.own.detach())


def gradients() -> nn.Module:
    made, calls = net(), [0]

    def hook(gradient: Tensor) -> Tensor:
        calls[0] += 1
        return gradient * (1 + 0.05 * calls[0])

    made[0].weight.register_hook(hook)  # type: ignore[index,no-untyped-call]
    return made


CASES: dict[str, Callable[[], dict[str, Any]]] = {
    "a module": lambda: {"model": net(Counting()), "blocks": ["0", "1", "2", "3"]},
    "a module that evaluates": lambda: {"model": net(Numbered()), "stages": 1, "method": "sgd"},
    "a loss module": lambda: {"model": net(), "loss": Weighing(), "method": "pham-ahn"},
    "a closure": lambda: {"model": net(), "loss": closing()},
    "a partial": lambda: {"model": net(), "loss": partial(listing, [])},
    "an optimizer": lambda: {"model": net(), "optimizer": lambda parameters: Attributes(parameters)},
    "a hook of steps": lambda: {"model": net(), "optimizer": hooked},
    "a schedule's object": lambda: {"model": net(), "scheduler": lambda optimizer: LambdaLR(optimizer, Factor())},
    "a schedule's closure": lambda: {"model": net(), "scheduler": falling},
    "a hook of gradients": lambda: {"model": gradients()},
    "a correction": lambda: {"model": net(), "method": replace(STALE, corrections=[Keeping])},
    "an average": lambda: {"model": net(nn.BatchNorm1d(8)), "callbacks": [stalegrid.WeightAverage(0.7)]},
    "a mean of all": lambda: {"model": net(nn.BatchNorm1d(8, momentum=None))},
    "Adafactor": lambda: {"model": net(), "optimizer": lambda parameters: torch.optim.Adafactor(parameters, lr=0.01)},
    "NAdam": lambda: {"model": net(), "optimizer": lambda parameters: torch.optim.NAdam(parameters, lr=0.01)},
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_remembered_goes_on(name: str, tmp_path: Path) -> None:
    check(tmp_path, CASES[name])


SEEN: list[int] = []


def in_a_global(outputs: Tensor, targets: Tensor) -> Tensor:
    SEEN.append(1)
    return cross_entropy(outputs, targets) * (1 + 0.01 * len(SEEN))


class InAClass:
    """A loss that counts for all of its kind."""

    calls = 0

    def __call__(self, outputs: Tensor, targets: Tensor) -> Tensor:
        InAClass.calls += 1
        return cross_entropy(outputs, targets) * (1 + 0.01 * InAClass.calls)


@pytest.mark.parametrize(("loss", "name"), [(in_a_global, "global SEEN"), (InAClass(), "InAClass.calls")])
def test_what_all_units_of_a_process_share_is_refused_by_name(loss: Any, name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=name):
        start(tmp_path / "run", net(), loss=loss, method="pham-ahn")


def test_virtual_time_goes_on(tmp_path: Path) -> None:
    costs = tmp_path / "costs.yaml"
    each = Cost(forward=2, backward=4, update=1, mix=0.5, parameters=10_000, output=5_000, input=5_000)
    CostTable(4, (each, each)).write(costs)
    devices = stalegrid.DeviceSettings(
        costs=costs,
        slow="0,1=3.0",
        jitter=0.3,
        stalls=[0.1, 50.0],
        link=[2.0, 1.0],
        lateral_link=[10.0, 5.0],
        outages="1,0@20-500;0,0>0,1@0-100",
    )
    mixing = stalegrid.MixingSettings(period=2, lag=1)
    output = stalegrid.OutputSettings(log_every=2, evaluate_every=0.5, loggers=[], trace=True)
    more = {"devices": devices, "groups": 2, "batch_size": 4, "mixing": mixing, "output": output}
    check(tmp_path, lambda: {"model": net(), **more})
    start(tmp_path / "plain", net(), **more, checkpoint=stalegrid.CheckpointSettings())
    plain, whole = (read(tmp_path / name)[:-1] for name in ("plain", "whole"))
    # Bytes that are held go by addresses, of which a run that is saved has others.
    for record in (*plain, *whole):
        for unit in record.get("staleness", {}).values():
            del unit["held"]
    assert plain == whole
    # The trace of the first part stays, and the rest has the dates of the whole.
    first, rest = (read_trace(tmp_path / "part" / name) for name in ("trace.json", "trace-from-6.json"))
    assert first == read_trace(tmp_path / "whole" / "trace.json")
    assert len(rest.spans) < len(first.spans)


class Drawn(IterableDataset[Any]):
    """A stream that draws, and is another one in every pass."""

    def __init__(self) -> None:
        self.passes = 0

    def __iter__(self) -> Iterator[Any]:
        self.passes += 1
        shift = torch.rand(())
        for n in range(26):
            yield torch.randn(6) + n % 3 + shift, n % 3


@settings(max_examples=6, deadline=None)
@given(every=st.integers(2, 8), groups=st.integers(1, 2), stages=st.integers(1, 2), micro=st.integers(1, 2))
def test_a_stream_goes_on_wherever_it_was(
    every: int, groups: int, stages: int, micro: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    def make() -> dict[str, Any]:
        method = stalegrid.MethodSettings(name="pham-ahn", staleness=[3, 1][:stages], micro_batches=micro)
        more = {"data": Drawn(), "test": None, "groups": groups, "stages": stages, "method": method}
        return {"model": net(), **more, "checkpoint": stalegrid.CheckpointSettings(every=every, keep=9)}

    check(tmp_path_factory.mktemp("stream"), make)


@pytest.mark.parametrize("case", ["items", "stream"])
def test_processes_go_on_too(case: str, tmp_path: Path) -> None:
    more = (
        {"data": [(x, int(y)) for x, y in DATA], "workers": 1} if case == "items" else {"data": Drawn(), "test": None}
    )
    check(tmp_path, lambda: {"model": net(nn.Dropout(0.2)), "engine": "processes", "updates": 6, **more})
