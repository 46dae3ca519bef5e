"""Loaders, functions that make batches, and who reads ahead, held against plain loops over the same loader."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import (
    ConcatDataset,
    DataLoader,
    Dataset,
    DistributedSampler,
    IterableDataset,
    Sampler,
    Subset,
    TensorDataset,
)

import stalegrid
from stalegrid import seeds
from stalegrid.data import Batches
from tests.cases import CPU

SIZE, UPDATES = 4, 25

X = torch.randn(42, 6, generator=torch.Generator().manual_seed(0))
PAIRS = TensorDataset(X, torch.arange(42) % 3)


class Texts(Dataset[Any]):
    """Sequences of several lengths."""

    def __len__(self) -> int:
        return 42

    def __getitem__(self, i: int) -> dict[str, Any]:
        return {"x": X[i, : 2 + i % 5], "label": i % 3}


class Noisy(Dataset[Any]):
    def __len__(self) -> int:
        return 42

    def __getitem__(self, i: int) -> Any:
        return X[i] + torch.randn(6), i % 3


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor, nothing: Tensor | None = None, times: int = 1) -> Tensor:
        scale = times if nothing is None else 0
        return self.c(torch.relu(self.b(torch.relu(self.a(x)))) * scale)


class Named(Net):
    def forward(self, x: Tensor, label: Tensor, nothing: Tensor | None, times: int) -> dict[str, Tensor]:  # type: ignore[override]
        return {"loss": F.cross_entropy(super().forward(x, nothing, times), label)}


def padded(items: list[Any]) -> dict[str, Any]:
    x = torch.stack([F.pad(item["x"], (0, 6 - len(item["x"]))) for item in items])
    return {"x": x, "label": torch.tensor([item["label"] for item in items]), "nothing": None, "times": 2}


def mixed(items: list[Any]) -> tuple[Tensor, Tensor]:
    """Mix-up, which draws once a batch."""
    x = torch.stack([item[0] for item in items])
    share = torch.rand(())
    return x * share + x.flip(0) * (1 - share), torch.tensor([item[1] for item in items])


class ByLength(Sampler[list[int]]):
    """Batches of samples of like lengths, in an order that the epoch makes."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 10

    def __iter__(self) -> Iterator[list[int]]:
        drawn = torch.randperm(10, generator=torch.Generator().manual_seed(self.epoch)).tolist()
        ordered = sorted(range(42), key=lambda i: (i % 5, i))
        return iter([ordered[4 * i : 4 * i + 4] for i in drawn])


def in_order() -> DataLoader[Any]:
    return DataLoader(PAIRS, SIZE, drop_last=True)


def distributed() -> DataLoader[Any]:
    return DataLoader(PAIRS, SIZE, sampler=DistributedSampler(PAIRS, 1, 0, seed=3), drop_last=True)


def by_length() -> DataLoader[Any]:
    return DataLoader(Texts(), batch_sampler=ByLength(), collate_fn=padded)


def parts() -> DataLoader[Any]:
    return DataLoader(ConcatDataset([Subset(PAIRS, range(30, 42)), Subset(PAIRS, range(9))]), SIZE, drop_last=True)


LOADERS: dict[str, tuple[Callable[[], DataLoader[Any]], type[Net]]] = {
    "in order": (in_order, Net),
    "a sampler": (distributed, Net),
    "batches of a sampler": (by_length, Named),
    "parts of data sets": (parts, Net),
}


def built(kind: type[Net]) -> Net:
    with seeds.drawing(CPU, 0, "test model"):
        return kind()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def visited(loader: DataLoader[Any]) -> Iterator[Any]:
    """Yield the batches of epoch after epoch, as anybody would."""
    epoch = 0
    while True:
        for sampler in (loader.sampler, loader.batch_sampler):
            if hasattr(sampler, "set_epoch"):
                sampler.set_epoch(epoch)
        yield from loader
        epoch += 1


def plain(kind: type[Net], batches: Iterator[Any]) -> nn.Module:
    model = built(kind)
    optimizer = sgd(list(model.parameters()))
    for _, batch in zip(range(UPDATES), batches, strict=False):
        loss = model(**batch)["loss"] if isinstance(batch, dict) else F.cross_entropy(model(batch[0]), batch[1])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model


def trained(kind: type[Net], data: Any, **options: Any) -> nn.Module:
    loss = None if kind is Named else F.cross_entropy
    usual: dict[str, Any] = {"updates": UPDATES, "quiet": True, "engine": "simulator", "method": "sgd"}
    return stalegrid.train(built(kind), data, loss=loss, optimizer=sgd, **{**usual, **options}).model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("name", LOADERS)
@pytest.mark.parametrize(
    "options",
    [{}, {"method": "1f1b", "stages": 2, "micro_batches": 1}, {"method": "hardsync", "learners": 1}],
    ids=["whole", "cut", "a learner"],
)
def test_a_run_over_a_loader_is_the_plain_loop_over_it(name: str, options: dict[str, Any]) -> None:
    make, kind = LOADERS[name]
    assert same(trained(kind, make(), **options), plain(kind, visited(make())))


@pytest.mark.parametrize("name", LOADERS)
def test_processes_compute_what_the_simulator_does_whoever_reads(name: str) -> None:
    make, kind = LOADERS[name]
    options: dict[str, Any] = {"method": "pipedream", "stages": 2, "cuts": ["b"]}
    first, *others = (
        trained(kind, make(), **options, engine=engine, workers=workers)
        for engine, workers in (("simulator", 0), ("simulator", 2), ("processes", 0), ("processes", 2))
    )
    assert all(same(one, first) for one in others)


def test_a_function_that_makes_batches_draws_by_their_key() -> None:
    options: dict[str, Any] = {"collate_fn": mixed, "batch_size": SIZE}
    loader = DataLoader(Noisy(), SIZE, shuffle=True, drop_last=True, collate_fn=mixed)
    batches = Batches(loader, groups=1, batch_size=SIZE)
    expected = plain(Net, ((*batches.inputs(0, n), batches.targets(0, n)) for n in range(UPDATES)))
    assert same(trained(Net, loader), expected)
    assert same(trained(Net, Noisy(), **options), expected)
    assert same(trained(Net, Noisy(), **options, workers=3), expected)
    cut: dict[str, Any] = {"method": "1f1b", "stages": 2, "micro_batches": 1, "engine": "processes"}
    assert same(trained(Net, Noisy(), **options, **cut, workers=1), expected)
    assert not same(trained(Net, Noisy(), batch_size=SIZE), expected)


def test_shuffled_samples_are_those_of_the_data_set_without_a_loader() -> None:
    loader = DataLoader(Noisy(), SIZE, shuffle=True, drop_last=True, num_workers=2)
    assert same(trained(Net, loader), trained(Net, Noisy(), batch_size=SIZE))


def test_groups_and_micro_batches_share_out_the_order_of_a_loader() -> None:
    options: dict[str, Any] = {"method": "1f1b", "stages": 2, "micro_batches": 2, "updates": 1}
    batches = Batches(in_order(), groups=2, batch_size=SIZE, micro_batches=2)
    seen = [batches.indices(s, b).tolist() for s in (0, 1) for b in (0, 1)]
    assert seen == [[0, 1], [2, 3], [4, 5], [6, 7]]
    trained(Net, in_order(), **options)


def measured(test: Any, **options: Any) -> float:
    usual: dict[str, Any] = {"loss": F.cross_entropy, "optimizer": sgd, "engine": "simulator", "method": "sgd"}
    made = stalegrid.train(built(Net), in_order(), test=test, updates=1, quiet=True, **usual, **options)
    loss: float = made.summary["test_loss"]
    return loss


def test_the_test_data_is_that_of_its_loader() -> None:
    model = trained(Net, in_order(), updates=1)

    def mean(loader: DataLoader[Any]) -> float:
        with torch.no_grad():
            found = [(len(y), float(F.cross_entropy(model(x), y))) for x, y in loader]
        return sum(size * value for size, value in found) / sum(size for size, _ in found)

    for loader in (DataLoader(PAIRS, 5), DataLoader(PAIRS, 5, drop_last=True), DataLoader(PAIRS, 3, sampler=[4, 2, 9])):
        assert measured(loader) == mean(loader)
    assert measured(PAIRS, test_batch_size=5) == mean(DataLoader(PAIRS, 5))
    assert measured(PAIRS, test_batch_size=42) != measured(PAIRS, test_batch_size=5)
    assert measured(PAIRS) == measured(PAIRS, test_batch_size=125)
    assert measured(DataLoader(PAIRS, 5, shuffle=True)) == mean(DataLoader(PAIRS, 5))


def refused(data: Any, **options: Any) -> str:
    with pytest.raises(stalegrid.ConfigError) as caught:
        trained(Net, data, **options)
    return str(caught.value)


def test_what_is_said_twice_is_refused() -> None:
    assert "(batch_size: 8, in the loader: 4)" in refused(in_order(), batch_size=8)
    assert "given twice" in refused(in_order(), training=stalegrid.TrainingSettings(batch_size=8))
    assert "(test_batch_size: 8, in the loader: 4)" in refused(in_order(), test=in_order(), test_batch_size=8)
    assert "(workers: -1)" in refused(in_order(), workers=-1)
    assert same(trained(Net, in_order(), batch_size=SIZE), trained(Net, in_order()))


class Own(Sampler[int]):
    """Draws from a generator of its own."""

    def __init__(self) -> None:
        self.source = torch.Generator()

    def __len__(self) -> int:
        return 42

    def __iter__(self) -> Iterator[int]:
        return iter(torch.randperm(42, generator=self.source).tolist())


def test_an_order_that_does_not_repeat_is_refused() -> None:
    assert "Own gives another order when it is asked again" in refused(DataLoader(PAIRS, SIZE, sampler=Own()))


BATCHES: dict[str, tuple[Callable[[list[Any]], Any], str]] = {
    "fails": (lambda items: 1 / 0, r"collate_fn fails (samples: 0, ..., epoch: 0): ZeroDivisionError"),
    "a string": (lambda items: {"x": X[:4], "text": ["a"]}, "(it is: a str, at: ['text'][0])"),
    "an array": (lambda items: (X[:4].numpy(), X[:4]), "(it is: a ndarray, at: [0])"),
    "a constant that changes": (
        lambda items: {"x": torch.stack([x for x, _ in items]), "times": int(items[0][1])},
        "other parts than the first one",
    ),
}


@pytest.mark.parametrize("name", BATCHES)
def test_a_batch_that_cannot_be_used_is_refused_with_the_place(name: str) -> None:
    collate_fn, expected = BATCHES[name]
    assert expected in refused(PAIRS, collate_fn=collate_fn, batch_size=SIZE)


class Encoding(dict[str, Any]):
    """A mapping of its own kind, as tokenizers return."""


def test_mappings_of_other_kinds_are_dictionaries() -> None:
    def loader(kind: type[dict[str, Any]]) -> DataLoader[Any]:
        return DataLoader(Texts(), SIZE, drop_last=True, collate_fn=lambda items: kind(padded(items)))

    assert same(trained(Named, loader(Encoding)), plain(Named, visited(loader(dict))))


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Iterator[Any]:
        return iter(PAIRS)


def test_a_stream_is_not_put_together_or_read_ahead_by_others() -> None:
    assert "reads a stream (data: Stream); give the stream itself" in refused(DataLoader(Stream(), SIZE))
    assert "(collate_fn is given)" in refused(Stream(), collate_fn=mixed)
    assert "(workers: 2); leave workers out" in refused(Stream(), workers=2)


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_targets_that_travel_are_those_of_the_loader(engine: str) -> None:
    options: dict[str, Any] = {"method": "1f1b", "stages": 2, "micro_batches": 1}
    options["training"] = stalegrid.TrainingSettings(targets="travel")
    found = trained(Named, by_length(), **options, engine=engine, workers=1)
    assert same(found, plain(Named, visited(by_length())))
