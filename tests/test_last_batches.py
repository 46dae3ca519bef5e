"""The incomplete last batch of an epoch, held against loops over ``DataLoader(drop_last=False)``, bit for bit."""

import copy
import json
import math
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

import stalegrid
from stalegrid import TrainingSettings, pad_to, seeds
from stalegrid.data import Batches, given
from stalegrid.errors import ConfigError
from stalegrid.plans.make import plan_of
from stalegrid.studies.verifying import verify
from tests.cases import CPU, images, make_settings, make_task

SIZE, SAMPLES = 8, 42  # five whole batches, and two samples
X = torch.randn(SAMPLES, 6, generator=torch.Generator().manual_seed(0))
PAIRS = TensorDataset(X, torch.arange(SAMPLES) % 3)
EPOCHS = 3
LAST = "incomplete last batch of an epoch"


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Linear(6, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x)).view(len(x), 8))))


class Normed(Layers):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.norm(self.b(torch.relu(self.a(x))))))


def built(kind: Callable[[], nn.Module]) -> nn.Module:
    with seeds.drawing(CPU, 0, "test model"):
        return kind()


def sgd(parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def decaying(optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler:
    return torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)


def incomplete(data: Any = PAIRS, **options: Any) -> DataLoader[Any]:
    return DataLoader(data, options.pop("batch_size", SIZE), **options)


def trained(kind: Callable[[], nn.Module] = Layers, data: Any = None, **options: Any) -> stalegrid.Result:
    usual: dict[str, Any] = {"loss": F.cross_entropy, "optimizer": sgd, "engine": "simulator", "method": "1f1b"}
    if options.get("method", "1f1b") == "1f1b":
        usual["micro_batches"] = 1
    usual |= {"epochs": EPOCHS} if "updates" not in options else {}
    return stalegrid.train(built(kind), incomplete() if data is None else data, quiet=True, **usual | options)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def epochs(loader: DataLoader[Any], number: int = EPOCHS) -> Iterator[Any]:
    return chain.from_iterable(loader for _ in range(number))


def plain(kind: Callable[[], nn.Module], loader: DataLoader[Any], parts: int = 1) -> tuple[nn.Module, list[float]]:
    """Train as anybody would, with the mean gradient of equal parts of every batch."""
    model = built(kind)
    optimizer, losses = sgd(model.parameters()), []
    rates = decaying(optimizer)
    for x, y in epochs(loader):
        optimizer.zero_grad()
        values = []
        for inputs, targets in zip(x.chunk(parts), y.chunk(parts), strict=True):
            # Cloned: some kernels sum in another order where memory is not aligned.
            loss = F.cross_entropy(model(inputs.clone()), targets.clone())
            (loss / parts).backward()
            values.append(loss.item())
        optimizer.step()
        rates.step()
        losses.append(sum(values) / parts)
    return model, losses


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("kind", [Layers, Normed])
def test_a_run_is_the_loop_over_the_loader(kind: type[nn.Module], stages: int) -> None:
    expected, losses = plain(kind, incomplete())
    cuts = [[], ["b"], ["b", "c"]][stages - 1]
    made = trained(kind, stages=stages, cuts=cuts, scheduler=decaying)
    assert same(made.model, expected)
    assert made.summary["updates"] == len(losses) == EPOCHS * math.ceil(SAMPLES / SIZE)


def by_sampler() -> DataLoader[Any]:
    return incomplete(sampler=[*range(30, 2, -1), 5, 5, 7])


def by_batches() -> DataLoader[Any]:
    return DataLoader(PAIRS, batch_sampler=[[3, 4, 5, 6], [9, 0, 2, 41], [7, 7]])


@pytest.mark.parametrize("loader", [by_sampler, by_batches])
def test_an_order_of_a_sampler_ends_with_its_own_rest(loader: Callable[[], DataLoader[Any]]) -> None:
    made = trained(Layers, loader(), stages=2, cuts=["c"], scheduler=decaying)
    assert same(made.model, plain(Layers, loader())[0])


@pytest.mark.parametrize("options", [{"micro_batches": 2, "method": "gpipe"}, {"groups": 2, "method": "data-parallel"}])
def test_parts_of_the_last_batch_are_averaged_as_those_of_any(options: dict[str, Any]) -> None:
    parts = 2 if "groups" in options else 1
    loader = incomplete(batch_size=SIZE * parts if parts > 1 else SIZE)
    given = trained(Layers, None, scheduler=decaying, batch_size=SIZE, **options)
    assert same(given.model, plain(Layers, loader, 2)[0])


def test_a_data_set_is_trained_whole_if_that_is_asked_for() -> None:
    whole = TrainingSettings(drop_last=False, epochs=EPOCHS)
    dropped = TrainingSettings(drop_last=True, epochs=EPOCHS)
    options: dict[str, Any] = {"updates": None, "scheduler": decaying, "stages": 2, "cuts": ["b"]}
    in_order = given(DataLoader(PAIRS, SIZE, drop_last=True))
    assert same(trained(Layers, in_order, training=whole, **options).model, plain(Layers, incomplete())[0])
    expected, losses = plain(Layers, DataLoader(PAIRS, SIZE, drop_last=True))
    assert len(losses) == EPOCHS * (SAMPLES // SIZE)
    assert same(trained(Layers, None, training=dropped, **options).model, expected)
    usual = trained(Layers, PAIRS, batch_size=SIZE)
    assert usual.summary["updates"] == len(losses), "a data set's rest is dropped unless somebody says otherwise"


def test_less_data_than_a_batch_is_one_batch() -> None:
    loader = incomplete(batch_size=64)
    made = trained(Layers, loader, stages=2, cuts=["b"], scheduler=decaying)
    assert made.summary["updates"] == EPOCHS
    assert same(made.model, plain(Layers, loader)[0])


def test_a_stale_run_is_a_stale_loop_over_the_loader() -> None:
    """Stage 0 forwards at the version before the last one's, and its backward sees those weights."""
    model = built(Layers)
    assert isinstance(model, Layers)
    low, high = model.a, nn.ModuleList([model.b, model.c])
    steps = [sgd(low.parameters()), sgd(high.parameters())]
    before = copy.deepcopy(low)
    for x, y in epochs(incomplete()):
        used, before = before, copy.deepcopy(low)
        h = torch.relu(used(x))
        F.cross_entropy(model.c(torch.relu(model.b(h))), y).backward()
        for p, q in zip(low.parameters(), used.parameters(), strict=True):
            p.grad = q.grad
        for step in steps:
            step.step()
            step.zero_grad()
    for engine in ("simulator", "processes"):
        made = trained(Layers, None, stages=2, cuts=["b"], method="pipedream", engine=engine)
        assert same(made.model, model)


# Every engine and the plain loops of this package, over a model with normalisation, dropout and skips.


METHODS: dict[str, tuple[int, dict[str, Any]]] = {
    "pipedream": (3, {"method": "pipedream", "stages": 3}),
    "dsp": (3, {"method": "dsp", "stages": 2}),
    "features-replay": (3, {"method": "features-replay", "stages": 2}),
    "recomputed": (3, {"method": "pipedream", "stages": 2, "view": "recomputed"}),
    "2bw": (4, {"method": "pipedream-2bw", "stages": 2, "micro_batches": 2}),
    "pipemare": (1, {"method": "pipemare", "stages": 2}),
    "gpipe": (4, {"method": "gpipe", "stages": 2, "micro_batches": 4}),
    "data-parallel": (6, {"method": "data-parallel", "groups": 2}),
    "groups that mix": (6, {"method": "pham-ahn", "groups": 2, "stages": 2}),
    "micro-batches of groups": (4, {"groups": 2, "stages": 2, "micro_batches": 2, "mixing": "all-reduce"}),
    "targets that travel": (3, {"method": "pipedream", "stages": 2, "targets": "travel"}),
    "readers": (3, {"method": "pipedream", "stages": 2, "workers": 2}),
    "float64": (6, {"stages": 2, "micro_batches": 2, "dtype": "float64"}),
    "hardsync": (9, {"method": "hardsync", "learners": 3}),
    "asgd": (2, {"method": "asgd", "learners": 2}),
}
"""Samples of the last batch, and how it is trained."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.thorough] * (i % 3 > 0)) for i, name in enumerate(METHODS)]
)
def test_processes_and_plain_loops_compute_what_the_simulator_does(name: str) -> None:
    rest, options = METHODS[name]
    together = 8 * options.get("groups", options.get("learners", 1))
    task = make_task(data=images(2 * together + rest), scheduler=None)
    usual: dict[str, Any] = {"method": "1f1b", "batch_size": 8, "updates": 9, "drop_last": False}
    if "learners" in options:
        usual |= {"groups": None, "stages": None, "cuts": None}
    settings = make_settings(**usual | options)
    assert plan_of(task, settings).updates_per_epoch == (6 if name == "asgd" else 3)
    found = verify(task, settings)
    assert [one.name for one in found] == ["processes", *([] if name == "recomputed" else ["plain loops"])]
    assert all(one.equal for one in found)


def reports(folder: Path, **options: Any) -> list[dict[str, Any]]:
    output = stalegrid.OutputSettings(folder=folder, log_every=6)
    trained(Layers, output=output, scheduler=decaying, **options)
    lines = map(json.loads, (folder / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["kind"] == "train"]


def test_losses_are_reported_over_samples(tmp_path: Path) -> None:
    _, losses = plain(Layers, incomplete())
    found = reports(tmp_path / "run", stages=2, cuts=["b"])
    assert [line["epoch"] for line in found] == [1, 2, 3]
    assert [line["samples"] for line in found] == [SAMPLES] * 3
    for line, own in zip(found, (losses[:6], losses[6:12], losses[12:]), strict=True):
        # Not to the bit: floats are added in another order.
        mean = (SIZE * sum(own[:5]) + 2 * own[5]) / SAMPLES
        assert line["loss"] == pytest.approx(mean, rel=1e-12)
        assert line["loss"] != pytest.approx(sum(own) / 6, rel=1e-4)


def test_learners_report_losses_over_samples(tmp_path: Path) -> None:
    found = reports(tmp_path / "run", method="hardsync", learners=2, batch_size=SIZE // 2, data=PAIRS_OF_FOUR)
    one = reports(tmp_path / "one", method="sgd", data=incomplete())
    assert [line["samples"] for line in found] == [SAMPLES] * 3
    # Not to the bit: a mean of two means is rounded once more, in gradients too.
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in one], rel=1e-4)


PAIRS_OF_FOUR = incomplete(batch_size=SIZE // 2)


def summed(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    return F.cross_entropy(scores, targets, reduction="sum"), torch.tensor(len(targets))


def test_a_sum_and_a_count_need_no_weights(tmp_path: Path) -> None:
    found = reports(tmp_path / "run", stages=2, cuts=["b"], loss=summed)
    one = reports(tmp_path / "one", method="sgd")
    # Not to the bit: a sum is divided once, a mean before the backward.
    assert [line["loss"] for line in found] == pytest.approx([line["loss"] for line in one], rel=1e-4)


# Several shapes.


class Texts(Dataset[Any]):
    """Sequences of 1 to 12 tokens."""

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, i: int) -> Any:
        tokens = torch.arange(1 + i % 12)
        return tokens, tokens % 3


class Tokens(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.a, self.b = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.a(self.e(x) * x.shape[1] + torch.arange(len(x))[:, None, None]))
        return self.b(h.view(-1, 8)).view(len(x), -1, 3)


def by_token(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-100)


def to_even(items: list[Any]) -> Any:
    """Pad to the next even length, and say so nowhere."""
    return pad_to([2, 4, 6, 8, 10, 12], (0, -100))(items)


def over_texts(loader: DataLoader[Any], number: int) -> nn.Module:
    """Train on the batches in the order of the run."""
    model = built(Tokens)
    optimizer = sgd(model.parameters())
    batches = Batches(loader, groups=1, batch_size=SIZE)
    for n in range(number):
        optimizer.zero_grad()
        by_token(model(*batches.inputs(0, n)), batches.targets(0, n)).backward()
        optimizer.step()
    return model


@pytest.mark.parametrize("known", [True, False])
def test_every_shape_of_the_last_batch_is_known_before_the_start(known: bool) -> None:
    """Those of later epochs too, which the first one may not have."""
    pad = pad_to([2, 4, 6, 8, 10, 12], (0, -100)) if known else to_even
    training = TrainingSettings(shapes=None if known else 6)
    for seed in range(2):
        loader = incomplete(Texts(), shuffle=True, collate_fn=pad)
        batches = Batches(loader, groups=1, batch_size=SIZE, seed=seed)
        last = [batches.inputs(0, n)[0].shape for n in range(5, 60, 6)]
        assert {len(ids) for ids in map(torch.empty, last)} == {2}
        assert len(set(last[1:])) > 1
    made = trained(
        Tokens, loader, loss=by_token, stages=2, cuts=["a"], training=training, epochs=10, seed=0, method="1f1b"
    )
    assert same(made.model, over_texts(loader, 60))


# What is refused.


def refused(**options: Any) -> str:
    with pytest.raises(ConfigError) as caught:
        trained(**options)
    return str(caught.value)


@pytest.mark.parametrize(
    "options",
    [{"stages": 1}, {"stages": 2}, {"method": "hardsync", "learners": 1}, {"method": "asgd", "learners": 1}],
    ids=str,
)
def test_normalisation_over_one_sample_is_refused_before_the_start(options: dict[str, Any]) -> None:
    said = refused(kind=Normed, data=incomplete(Subset(PAIRS, range(41))), **options)
    assert f"the model does not take the {LAST} (samples: 1, of a whole batch: 8): Expected more than 1 value" in said
    assert "drop it (drop_last=True in the DataLoader, or training.drop_last: true)" in said
    # Runs that end before the last batch; a learner by itself may begin with one that no server takes.
    short = {"data": incomplete(Subset(PAIRS, range(41))), "updates": 4 if "asgd" in options.values() else 5}
    trained(Normed, **short, **options)


def test_a_rest_that_cannot_be_parted_equally_is_refused() -> None:
    assert f"the {LAST} cannot be parted equally (samples: 2, groups: 1, micro-batches: 4)" in refused(micro_batches=4)
    assert "(samples: 10, groups: 4, micro-batches: 1)" in refused(groups=4, method="data-parallel", batch_size=SIZE)
    trained(Layers, micro_batches=4, training=TrainingSettings(drop_last=True))


def test_learners_that_run_ahead_do_not_average_unequal_gradients() -> None:
    options: dict[str, Any] = {"method": "softsync", "learners": 2, "data": PAIRS_OF_FOUR}
    softsync = stalegrid.ServerSettings(softsync=1)
    said = refused(**options, servers=softsync)
    assert f"come to the {LAST} at different times (method: softsync, samples: 2)" in said
    assert "or take hardsync or asgd" in said
    trained(**options, loss=summed, servers=softsync, updates=9)


def test_the_end_of_a_stream_is_not_known() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(PAIRS)

    training = TrainingSettings(drop_last=False, batch_size=SIZE, updates=9)
    said = refused(data=Stream(), training=training, updates=None)
    assert "at the end of a stream shows only there" in said
    assert "training.drop_last: false" in said


def test_a_number_that_counts_samples_is_refused_before_the_start() -> None:
    def counting(items: list[Any]) -> Any:
        return {"x": torch.stack([x for x, _ in items]), "size": len(items)}, torch.tensor([y for _, y in items])

    class Counting(Layers):
        def forward(self, x: Tensor, size: int) -> Tensor:  # type: ignore[override]
            return super().forward(x) / size

    said = refused(kind=Counting, data=incomplete(collate_fn=counting))
    assert "a batch has other parts than the first one" in said
    assert "(sample: 40, epoch: 0); let all samples have the same, and make tensors of numbers that differ" in said
