"""Batches of several shapes: every engine and plain loops over the whole model, bit for bit; and what is refused."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset, IterableDataset

import stalegrid
from stalegrid import TrainingSettings, pad_to, seeds
from stalegrid.data import Batches
from stalegrid.errors import ConfigError, TrainingError
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit
from stalegrid.studies.verifying import verify
from tests.cases import CPU, make_plan, make_settings, make_task

UPDATES = 14
ROWS = torch.randint(1, 20, (60, 12), generator=torch.Generator().manual_seed(0))


class Alone(Dataset[Any]):
    """Sequences of 3 to 6 tokens, a batch each."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> Any:
        return ROWS[i, : 3 + i % 4], i % 3


class Texts(Dataset[Any]):
    """Sequences of 1 to 12 tokens, with a label for each token."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> Any:
        tokens = ROWS[i, : 1 + i % 12]
        return tokens, tokens % 3


class Sized(nn.Module):
    """Has answers of shapes, and a tensor that is made of them, on both sides of all cuts."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.a, self.b, self.c = nn.Embedding(20, 8), nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm, self.drop = nn.BatchNorm1d(8), nn.Dropout(0.2)

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        h = self.e(x) * length**0.5 + torch.arange(length, dtype=torch.float32)[:, None] / 7
        h = self.drop(F.relu(self.a(h))).view(-1, length, 8)
        h = self.norm(F.relu(self.b(h)).reshape(-1, 8)).view(-1, length, 8)
        weights = torch.arange(1, length + 1, dtype=torch.float32)[:, None]
        return self.c(h * weights / length)


class Pooled(Sized):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).mean(1)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.e, self.rnn = nn.Embedding(20, 8), nn.LSTM(8, 8, batch_first=True)
        self.c, self.d = nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.d(F.relu(self.c(self.rnn(self.e(x))[0])))


class Tied(nn.Module):
    """Reads its embedding in the last stage too."""

    def __init__(self) -> None:
        super().__init__()
        self.e, self.a = nn.Embedding(20, 8), nn.Linear(8, 8)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(F.relu(self.a(self.e(x))), self.e.weight)


def by_token(scores: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-100)


def counted(scores: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    total = F.cross_entropy(scores.flatten(0, 1), targets.flatten(), ignore_index=-100, reduction="sum")
    return total, (targets != -100).sum()


def padded() -> DataLoader[Any]:
    return DataLoader(Texts(), 4, shuffle=True, drop_last=True, collate_fn=pad_to([4, 8, 12], (0, -100)))


def alone() -> DataLoader[Any]:
    return DataLoader(Alone(), 1, shuffle=True, drop_last=True)


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def built(kind: type[nn.Module]) -> nn.Module:
    with seeds.drawing(CPU, 0, "test model"):
        return kind()


CASES: dict[str, tuple[type[nn.Module], Callable[[], DataLoader[Any]], Any]] = {
    "one sample a batch": (Pooled, alone, F.cross_entropy),
    "padded": (Sized, padded, by_token),
    "recurrent": (Recurrent, padded, by_token),
    "tied": (Tied, padded, by_token),
}


def plain(kind: type[nn.Module], data: DataLoader[Any], loss: Any, without: type[nn.Module] = nn.Dropout) -> nn.Module:
    """Train as anybody would, on the batches in the order of the run."""
    model = built(kind)
    optimizer = sgd(list(model.parameters()))
    assert data.batch_size is not None
    batches = Batches(data, groups=1, batch_size=data.batch_size)
    shapes = set()
    for n in range(UPDATES):
        (x,) = batches.inputs(0, n)
        shapes.add(x.shape)
        optimizer.zero_grad()
        loss(model(x), batches.targets(0, n)).backward()
        optimizer.step()
    assert len(shapes) > 1
    return model


def trained(kind: type[nn.Module], data: Any, loss: Any, shapes: int | None = 4, **options: Any) -> nn.Module:
    usual: dict[str, Any] = {"updates": UPDATES, "quiet": True, "engine": "simulator", "method": "1f1b"}
    usual |= {"micro_batches": 1} if options.get("method", "1f1b") == "1f1b" else {}
    training = TrainingSettings(shapes=shapes)
    return stalegrid.train(built(kind), data, loss=loss, optimizer=sgd, training=training, **usual | options).model


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


def calm(kind: type[nn.Module]) -> type[nn.Module]:
    """Return a model without dropout, whose draws have keys of their own in stages."""

    def make() -> nn.Module:
        model = kind()
        for part in model.modules():
            if isinstance(part, nn.Dropout):
                part.p = 0.0
        return model

    return make  # type: ignore[return-value]


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stages", [1, 2, 3])
def test_a_run_is_the_plain_loop_over_the_whole_model(name: str, stages: int) -> None:
    kind, data, loss = CASES[name]
    if name == "tied" and stages == 3:
        cuts = ["a", "linear"]
    else:
        cuts = [[], ["a" if name == "tied" else "c"], ["a" if hasattr(kind(), "b") else "rnn", "c"]][stages - 1]
    expected = plain(calm(kind), data(), loss)
    assert same(trained(calm(kind), data(), loss, stages=stages, cuts=cuts), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"method": "data-parallel", "groups": 2},
        {"method": "hardsync", "learners": 2},
        {"method": "pham-ahn", "groups": 2, "stages": 1},
    ],
    ids=lambda options: options["method"],
)
def test_a_model_in_one_piece_takes_any_shape(options: dict[str, Any]) -> None:
    runs = [trained(Pooled, alone(), F.cross_entropy, None, **options, engine=e) for e in ("simulator", "processes")]
    assert same(*runs)


METHODS: dict[str, dict[str, Any]] = {
    "pipedream": {"method": "pipedream", "stages": 3},
    "recomputed": {"method": "pipedream", "stages": 2, "view": "recomputed"},
    "micro-batches": {"method": "gpipe", "stages": 2, "micro_batches": 2},
    "groups that mix": {"method": "pham-ahn", "groups": 2, "stages": 2},
    "targets that travel": {"method": "pipedream", "stages": 3, "targets": "travel"},
    "readers": {"method": "pipedream", "stages": 2, "workers": 2},
}


@pytest.mark.parametrize("name", METHODS)
def test_processes_and_plain_loops_compute_what_the_simulator_does(name: str) -> None:
    options: dict[str, Any] = {"updates": 8, "batch_size": 4, "cuts": None, "shapes": None} | METHODS[name]
    options["cuts"] = ["a", "c"] if options["stages"] == 3 else ["b"]
    task = make_task(
        model=built(Sized), data=stalegrid.data.given(padded()), loss=by_token, optimizer=sgd, scheduler=None
    )
    found = verify(task, make_settings(**options))
    assert [one.name for one in found] == ["processes", *([] if name == "recomputed" else ["plain loops"])]
    assert all(one.equal for one in found)


def test_a_sum_and_a_count_make_groups_and_micro_batches_one_big_batch() -> None:
    """Not to the bit: a sum over one batch is added in another order than sums of its parts."""
    whole = DataLoader(Texts(), 8, shuffle=True, drop_last=True, collate_fn=pad_to([12], (0, -100)))
    one = trained(Recurrent, whole, counted, method="sgd")
    parts = {"method": "1f1b", "groups": 2, "stages": 2, "micro_batches": 2, "mixing": "all-reduce"}
    many = trained(Recurrent, padded(), counted, **parts)
    pairs = zip(one.parameters(), many.parameters(), strict=True)
    assert all(torch.allclose(a, b, rtol=1e-4, atol=1e-6) for a, b in pairs)


def test_messages_and_what_is_held_are_those_of_the_largest_batch() -> None:
    task = make_task(model=built(Sized), data=stalegrid.data.given(padded()), loss=by_token, scheduler=None)
    asked: dict[str, Any] = {"method": "pipedream", "cuts": ["c"], "batch_size": 4, "targets": "travel"}
    plan = make_plan(task, make_settings(1, 2, **asked))
    up, down, across = (
        Edge("activation", Unit(0, 0), Unit(0, 1)),
        Edge("gradient", Unit(0, 1), Unit(0, 0)),
        Edge("target", Unit(0, 0), Unit(0, 1)),
    )
    assert {layout[0].shape for layout in plan.layouts(up)} == {(4, n, 8) for n in (4, 8, 12)}
    assert {layout[0].shape for layout in plan.layouts(down)} == {(4, n, 8) for n in (4, 8, 12)}
    assert {layout[0].shape for layout in plan.layouts(across)} == {(4, n) for n in (4, 8, 12)}
    assert plan.layout(up) == plan.layouts(up)[0]
    assert (plan.nbytes(up), plan.nbytes(across)) == (4 * 12 * 8 * 4, 4 * 12 * 8)
    long = make_task(
        model=built(Sized),
        data=stalegrid.data.given(DataLoader(Texts(), 4, collate_fn=pad_to([12], (0, -100)))),
        loss=by_token,
        scheduler=None,
    )
    assert plan.held == make_plan(long, make_settings(1, 2, **asked)).held


class Rows(Dataset[Any]):
    """Texts as a tokenizer gives them."""

    def __len__(self) -> int:
        return 60

    def __getitem__(self, i: int) -> Any:
        ids = ROWS[i, : 1 + i % 12]
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": ids}


@pytest.mark.filterwarnings("ignore")  # of what transformers and torch.export think of their own calls
def test_a_model_of_transformers_with_tied_weights_is_the_plain_loop() -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.GPT2Config(
        vocab_size=20, n_positions=16, n_embd=8, n_layer=2, n_head=2, attn_pdrop=0.0, resid_pdrop=0.0, embd_pdrop=0.0
    )
    pad = pad_to([4, 8, 12], {"input_ids": 0, "attention_mask": 0, "labels": -100})
    options: dict[str, Any] = {"batch_size": 2, "updates": 8, "collate_fn": pad}

    def kind() -> nn.Module:
        model: nn.Module = transformers.GPT2LMHeadModel(config)
        return model

    one = trained(kind, Rows(), None, None, method="sgd", **options)  # type: ignore[arg-type]
    cuts = ["transformer.h.0.mlp", "transformer.h.1.mlp"]
    cut = trained(kind, Rows(), None, None, stages=3, cuts=cuts, **options)  # type: ignore[arg-type]
    assert same(cut, one)


# What is refused.


def test_more_shapes_than_are_allowed_are_refused_before_the_start() -> None:
    text = (
        r"batches have more shapes than are allowed \(training.shapes: 2, found: \(1, \d+\); \(1, \d+\), and: "
        r"\(1, \d+\), sample: \d+\); allow more, or make .* as collate_fn=stalegrid.pad_to"
    )
    with pytest.raises(ConfigError, match=text):
        trained(Pooled, alone(), F.cross_entropy, 2, stages=2)
    with pytest.raises(ConfigError, match=r"training\.shapes: 2, found"):
        trained(Sized, padded(), by_token, 2, stages=2)
    with pytest.raises(ConfigError, match=r"a shape at least \(training.shapes: 0\); take 1 or more"):
        trained(Sized, padded(), by_token, 0, stages=1)


class Growing(Alone):
    """Has a shape that the first batch, or the first epoch, lacks."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return ROWS[i, : 3 + (i % 2 if i < self.first else 3)], 0


class Later:
    """Comes to the last two samples in its second epoch only."""

    def __init__(self) -> None:
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return 6

    def __iter__(self) -> Iterator[int]:
        return iter(range(6) if self.epoch == 0 else range(2, 8))


@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_a_shape_that_no_batch_of_the_first_epoch_has_ends_the_run(engine: str) -> None:
    loader: DataLoader[Any] = DataLoader(Growing(6), 1, sampler=Later(), drop_last=True)  # type: ignore[arg-type]
    text = (
        r"another shape than the model was cut for \(shape: \(1, 6\), cut for: \(1, 3\); \(1, 4\), unit: \(0,0\), "
        r"batch: 10, sample: 6\); .*stalegrid.pad_to.*training.shapes.*one stage"
    )
    options: dict[str, Any] = {"stages": 2, "cuts": ["c"], "method": "pipedream", "engine": engine}
    with pytest.raises(TrainingError, match=text):
        trained(Pooled, loader, F.cross_entropy, **options)
    text = r"another shape than the model was cut for \(shape: \(1, 4\), cut for: \(1, 3\), unit: \(0,0\), batch: 1, "
    with pytest.raises(TrainingError, match=text):
        trained(Pooled, loader, F.cross_entropy, None, **options)


def test_a_stage_is_told_of_the_shape_where_it_could_not_see_it() -> None:
    class Late(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.e(x).sum(1)) / x.shape[1])

    expected = plain(Late, alone(), F.cross_entropy)
    for cut in ("b", "sum_1"):
        assert same(trained(Late, alone(), F.cross_entropy, stages=2, cuts=[cut]), expected)


def test_a_model_that_branches_on_a_shape_is_cut_where_all_have_the_place() -> None:
    class Branching(Pooled):
        def forward(self, x: Tensor) -> Tensor:
            h = self.a(self.e(x))
            return self.c(F.relu(self.b(h) if x.shape[1] > 4 else h)).mean(1)

    with pytest.raises(ConfigError, match=r"cut for batches of another shape .*cuts: b\).*no such module.*'b'"):
        trained(Branching, DataLoader(Alone(), 1, sampler=range(3, 60)), F.cross_entropy, stages=2, cuts=["b"])
    expected = plain(Branching, alone(), F.cross_entropy)
    assert same(trained(Branching, alone(), F.cross_entropy, stages=2, cuts=["a"]), expected)


def test_a_stream_cannot_be_looked_at() -> None:
    class Stream(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter([(ROWS[i, :4], i % 3) for i in range(60)])

    with pytest.raises(ConfigError, match=r"of a stream cannot be looked at before the run \(training.shapes: 4\)"):
        trained(Pooled, Stream(), F.cross_entropy, stages=2, batch_size=1)
