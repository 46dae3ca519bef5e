"""Data sets that give another sample when they are read again, or fail when training is under way."""

import os
import random
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, TensorDataset

from stalegrid.data.repeating import check_repeats, fingerprint
from stalegrid.engines.settings import EngineSettings
from stalegrid.errors import ConfigError, DataError, SampleError
from stalegrid.methods.settings import MethodSettings
from stalegrid.programs.settings import GridSettings
from stalegrid.train import train
from tests.cases import build

OWN = np.random.default_rng(0)
OWN_TORCH = torch.Generator()
OWN_PYTHON = random.Random(0)
SYSTEM = random.SystemRandom()

UNKEYED: dict[str, Callable[[], float]] = {
    "fresh": lambda: np.random.default_rng().random(),
    "fresh legacy": lambda: np.random.RandomState().rand(),
    "fresh python": lambda: random.Random().random(),
    "urandom": lambda: os.urandom(1)[0] / 256,
    "secrets": lambda: secrets.randbelow(256) / 256,
    "system": SYSTEM.random,
    "own": OWN.random,
    "own torch": lambda: float(torch.rand((), generator=OWN_TORCH)),
    "own python": OWN_PYTHON.random,
}
KEYED: dict[str, Callable[[], float]] = {
    "torch": lambda: float(torch.rand(())),
    "numpy": np.random.rand,
    "python": random.random,
    "seeded": lambda: np.random.default_rng(np.random.randint(2**31)).random(),
}


class Drawn(Dataset[Any]):
    """Inputs and targets that are drawn, and agree within one sample alone."""

    def __init__(self, draw: Callable[[], float], size: int = 64, target: bool = True, flips: bool = False) -> None:
        self.draw, self.size, self.target, self.flips = draw, size, target, flips

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        drawn = float(self.draw() < 0.5) if self.flips else self.draw()
        x = torch.zeros(4) if self.target else torch.full((4,), drawn)
        return x, torch.tensor([drawn if self.target else 0.0])


@pytest.mark.parametrize("name", UNKEYED)
@pytest.mark.parametrize("target", [True, False])
def test_a_data_set_that_draws_by_itself_is_refused_with_the_remedy(name: str, target: bool) -> None:
    with pytest.raises(DataError, match=r"the test data gives another sample .* \(sample: \d+, epoch: \d\).*randint"):
        check_repeats(Drawn(UNKEYED[name], target=target), "test data", 0)


@pytest.mark.parametrize("name", KEYED)
def test_a_data_set_that_draws_from_the_global_generators_repeats_itself(name: str) -> None:
    data = Drawn(KEYED[name])
    check_repeats(data, "training data", 0)
    assert fingerprint(data) == fingerprint(data)
    assert fingerprint(data) != fingerprint(Drawn(KEYED[name], size=63))


class Grown(Dataset[Any]):
    """Gives samples of another size or type after a few reads."""

    def __init__(self, kind: str) -> None:
        self.kind, self.reads = kind, 0

    def __len__(self) -> int:
        return 3

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        self.reads += 1
        late = self.reads > 4
        return torch.zeros(2 + (late and self.kind == "size"), dtype=[torch.int32, torch.int64][late]), 0


@pytest.mark.parametrize("kind", ["size", "type"])
def test_another_size_or_type_is_another_sample(kind: str) -> None:
    with pytest.raises(DataError, match="another sample"):
        check_repeats(Grown(kind), "training data", 0)


@pytest.mark.parametrize("size", [0, 1, 2])
def test_small_data_sets_are_looked_at_whole(size: int) -> None:
    data = TensorDataset(torch.arange(size), torch.arange(size))
    check_repeats(data, "training data", 0)
    assert fingerprint(data).count(":") == size


def test_a_fingerprint_tells_values_types_and_shapes_apart() -> None:
    x, y = torch.arange(40.0).view(10, 4), torch.arange(10)
    made = [(x, y), (x + 1, y), (x, y + 1), (x.double(), y.int()), (x.view(10, 2, 2), y), (x[:9], y[:9])]
    assert len({fingerprint(TensorDataset(*pair)) for pair in made} | {fingerprint(None)}) == len(made) + 1


SETTINGS: dict[str, dict[str, Any]] = {
    "one stage": {"method": "sgd"},
    "two stages": {"grid": GridSettings(groups=2, stages=2, cuts=["1"])},
    "servers": {"method": "softsync", "learners": 2},
}


def run(data: Dataset[Any], name: str, **changes: Any) -> None:
    model = build(lambda: nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1)))
    usual: dict[str, Any] = {"engine": "simulator", "batch_size": 4, "updates": 12, "quiet": True, "loss": nn.MSELoss()}
    train(model, data, optimizer=lambda p: torch.optim.SGD(p, lr=0.01), **{**usual, **SETTINGS[name], **changes})


@pytest.mark.parametrize("name", SETTINGS)
def test_training_refuses_such_data_before_it_starts(name: str, tmp_path: Path) -> None:
    good, bad = Drawn(KEYED["numpy"]), Drawn(UNKEYED["fresh"])
    with pytest.raises(ConfigError, match="the training data gives another sample"):
        run(bad, name, out=tmp_path / "run")
    with pytest.raises(ConfigError, match="the test data gives another sample"):
        run(good, name, out=tmp_path / "run", test=bad)
    assert not (tmp_path / "run").exists()
    run(good, name, test=good)


class Spoilt(Dataset[Any]):
    """Good samples, and one that is bad after it was read a few times; twice it is read to see whether it repeats."""

    def __init__(self, item: Any, good: int = 2) -> None:
        self.item, self.good, self.reads = item, good, 0

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> Any:
        if index == 47 and self.reads >= self.good:
            if isinstance(self.item, Exception):
                raise self.item
            return self.item
        self.reads += index == 47
        return torch.full((4,), index / 48), torch.zeros(1)


BAD: dict[str, Any] = {
    "raises": OSError("the file is gone"),
    "none": None,
    "of one": (torch.zeros(4),),
    "of three": (torch.zeros(4), torch.zeros(1), 1.0),
    "of another shape": (torch.zeros(5), torch.zeros(1)),
    "a string": "sample",
    "a pair with a string": (torch.zeros(4), "cat"),
    "a pair with nothing": (None, torch.zeros(1)),
}


@pytest.mark.parametrize("name", SETTINGS)
@pytest.mark.parametrize("bad", BAD)
def test_a_sample_that_fails_while_training_is_named(name: str, bad: str) -> None:
    with pytest.raises(SampleError, match=r"\(sample: 47, epoch: \d\)"):
        run(Spoilt(BAD[bad]), name, batch_size=8, updates=30)


def test_a_sample_that_fails_in_a_worker_is_named() -> None:
    with pytest.raises(SampleError, match=r"the file is gone"):
        run(Spoilt(BAD["raises"]), "two stages", batch_size=8, updates=30, engine=EngineSettings(processes=1))


def test_a_sample_that_fails_in_the_test_is_named() -> None:
    with pytest.raises(SampleError, match=r"do not stack .* \(sample: 47, epoch: 0\)"):
        run(Drawn(KEYED["torch"]), "one stage", updates=48, test=Spoilt(BAD["none"], good=3))


@pytest.mark.parametrize("bad", BAD)
def test_a_sample_that_fails_at_the_start_is_an_error_of_configuration(bad: str) -> None:
    data = Spoilt(BAD[bad], good=0)
    with pytest.raises(DataError, match=r"\(sample: 47, epoch: \d\)"):
        run(data, "one stage", batch_size=48)


class Changing(Dataset[Any]):
    """Samples that are other ones in every process after a while, such as those of a file that somebody writes."""

    def __init__(self, reads: int) -> None:
        self.reads = reads

    def __len__(self) -> int:
        return 48

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        self.reads -= 1
        return torch.full((4,), index / 48), torch.full((1,), 1 + os.getpid() % 999 / 999 if self.reads < 0 else 0.0)


@pytest.mark.parametrize("method", ["pham-ahn", "gpipe"])
def test_stages_that_read_other_samples_for_one_batch_are_found_out(method: str) -> None:
    asked = MethodSettings(name=method, micro_batches=4 if method == "gpipe" else None)
    grid, engine = GridSettings(groups=1, stages=2, cuts=["1"]), EngineSettings(processes=2)
    settings = {"method": asked, "grid": grid, "engine": engine}
    for seed in range(2):
        with pytest.raises(SampleError, match=r"have read different samples .* \(group: 0, version: \d+\)"):
            run(Changing(150), "two stages", batch_size=8, updates=30, seed=seed, **settings)
    run(Changing(10**9), "two stages", batch_size=8, updates=30, **settings)


@pytest.mark.parametrize("method", ["pham-ahn", "gpipe"])
def test_stages_of_one_process_read_a_sample_once(method: str) -> None:
    asked = MethodSettings(name=method, micro_batches=4 if method == "gpipe" else None)
    settings = {"method": asked, "grid": GridSettings(groups=1, stages=2, cuts=["1"])}
    run(Changing(150), "two stages", batch_size=8, updates=30, **settings)
