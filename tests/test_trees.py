"""Batches and outputs that are trees, held against plain loops: what a data set gives reaches model and loss whole."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils import _pytree as pytree
from torch.utils.data import Dataset

import stalegrid
from stalegrid import seeds
from stalegrid.data import Batches
from stalegrid.objects import tensors_in
from tests.cases import CPU

SIZE, UPDATES = 4, 5


@dataclass
class Output:
    loss: Tensor | None
    scores: Tensor


pytree.register_dataclass(Output)


class Net(nn.Module):
    """Takes tensors by position and by name, some of them nested; one is an index, one a mask."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(5, 6)
        self.a, self.b, self.c = nn.Linear(3, 6), nn.Linear(6, 6), nn.Linear(6, 4)

    def hidden(self, x: Tensor, word: Tensor, mask: Tensor) -> Tensor:
        h = torch.relu(self.a(x)) + self.words(word)
        return torch.relu(self.b(h)) * mask.unsqueeze(1)


class Named(Net):
    def forward(self, x: Tensor, rest: dict[str, Any], labels: Tensor, scale: float = 2.0) -> dict[str, Any]:
        scores = self.c(self.hidden(x, rest["word"], rest["mask"])) * scale
        return {"loss": F.cross_entropy(scores, labels), "more": [None, (scores,)]}


class InPairs(Net):
    def forward(self, x: Tensor, *, word: Tensor, mask: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        h = self.hidden(x, word, mask)
        return self.c(h), {"h": h}


class Itself(Net):
    def forward(self, x: Tensor, rest: list[Tensor], labels: Tensor) -> Output:
        scores = self.c(self.hidden(x, *rest))
        return Output(F.cross_entropy(scores, labels), scores)


class Items(Dataset[Any]):
    def __init__(self, make: Callable[[int, Tensor], Any]) -> None:
        self._make = make

    def __len__(self) -> int:
        return 40

    def __getitem__(self, i: int) -> Any:
        return self._make(i, torch.randn(3))


NAMED = Items(lambda i, x: {"x": x, "rest": {"word": i % 5, "mask": i % 3 > 0}, "labels": i % 4})
PAIRS = Items(lambda i, x: ({"x": x, "word": i % 5, "mask": i % 3 > 0}, {"label": i % 4, "weight": [float(i % 2 + 1)]}))
TRIPLES = Items(lambda i, x: (x, (i % 5, i % 3 > 0), i % 4))


def weighted(scores: Tensor, more: dict[str, Tensor], target: dict[str, Any]) -> Tensor:
    each = F.cross_entropy(scores, target["label"], reduction="none")
    return (each * target["weight"][0]).mean() + more["h"].square().mean()


def of_whole(output: dict[str, Any], batch: dict[str, Any]) -> Tensor:
    return F.cross_entropy(output["more"][1][0], batch["labels"])


CASES: dict[str, tuple[type[Net], Dataset[Any], Any]] = {
    "by name, the model's loss": (Named, NAMED, None),
    "by name, a loss of the batch": (Named, NAMED, of_whole),
    "pairs of trees": (InPairs, PAIRS, weighted),
    "three, a dataclass": (Itself, TRIPLES, None),
}


def built(kind: type[Net]) -> Net:
    with seeds.drawing(CPU, 0, "test model"):
        return kind()


def sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9)


def plain(name: str) -> nn.Module:
    """Train as anybody would."""
    kind, data, loss = CASES[name]
    model, batches = built(kind), Batches(data, groups=1, batch_size=SIZE)
    optimizer = sgd(list(model.parameters()))
    for n in range(UPDATES):
        args, kwargs = batches.form.fill(batches.inputs(0, n))
        output = model(*args, **kwargs)
        if loss is None:
            found = output["loss"] if isinstance(output, dict) else output.loss
        elif isinstance(output, tuple):
            found = loss(*output, batches.targets(0, n))
        else:
            found = loss(output, batches.targets(0, n))
        optimizer.zero_grad()
        found.backward()
        optimizer.step()
    return model


def trained(name: str, **options: Any) -> stalegrid.Result:
    kind, data, loss = CASES[name]
    settings: dict[str, Any] = {"batch_size": SIZE, "updates": UPDATES, "quiet": True, **options}
    return stalegrid.train(built(kind), data, loss=loss, optimizer=sgd, test=data, **settings)


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(map(torch.equal, a.state_dict().values(), b.state_dict().values()))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize(
    "options",
    [{"method": "sgd"}, {"method": "1f1b", "stages": 2, "micro_batches": 1}, {"method": "hardsync", "learners": 1}],
    ids=["whole", "cut", "a learner"],
)
def test_a_run_without_staleness_is_the_plain_loop(name: str, options: dict[str, Any]) -> None:
    result = trained(name, engine="simulator", **options)
    assert same(result.model, plain(name))
    assert result.summary["test_loss"] > 0


@pytest.mark.parametrize("name", CASES)
def test_processes_compute_what_the_simulator_does(name: str) -> None:
    cuts = ["b"] if name != "pairs of trees" else ["c"]
    one, other = (trained(name, method="pipedream", cuts=cuts, stages=2, engine=e) for e in ("simulator", "processes"))
    assert same(one.model, other.model)
    assert not same(one.model, plain(name))


def test_a_model_without_a_loss_is_refused_where_none_is_given() -> None:
    with pytest.raises(stalegrid.ConfigError, match=r"output has no loss \(it is: a tuple of 2\); give a loss"):
        stalegrid.train(built(InPairs), PAIRS, optimizer=sgd, batch_size=SIZE, updates=1, method="sgd", quiet=True)


def test_scores_are_not_taken_for_a_loss_where_none_is_given() -> None:
    data = [(torch.randn(4), 0) for _ in range(8)]
    with pytest.raises(
        stalegrid.ConfigError, match=r"output is not a loss \(shape: \(4, 3\)\), .*loss=nn.CrossEntropyLoss"
    ):
        stalegrid.train(nn.Linear(4, 3), data, optimizer=sgd, batch_size=4, updates=1, method="sgd", quiet=True)


LEAVES = st.integers(-9, 9) | st.floats(-1, 1, width=32)
TREES = st.recursive(
    LEAVES, lambda t: st.lists(t, min_size=1, max_size=3) | st.dictionaries(st.sampled_from("abc"), t, min_size=1)
)


class Sums(nn.Module):
    """Takes any arguments, and returns them with their sum times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(0.5))

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        total = sum(x.float().sum() for x in tensors_in((args, kwargs)))
        return {"back": (args, kwargs), "loss": total * self.w}


SEEN: list[Any] = []


def noting(output: dict[str, Any], targets: Any) -> Tensor:
    SEEN.append((output["back"], targets))
    return output["loss"]


@settings(max_examples=20, deadline=None)
@given(TREES)
def test_any_tree_reaches_the_model_and_the_loss_as_it_is(tree: Any) -> None:
    data = Items(lambda i, x: {"tree": tree, "number": i})
    options: dict[str, Any] = {"method": "sgd", "batch_size": 2, "updates": 1, "engine": "simulator", "quiet": True}
    with pytest.warns(UserWarning, match="global SEEN"):
        stalegrid.train(Sums(), data, loss=noting, optimizer=sgd, **options)
    (args, kwargs), targets = SEEN[-1]
    expected = torch.utils.data.default_collate([{"tree": tree, "number": int(i)} for i in kwargs["number"]])
    assert args == ()
    for found in (kwargs, targets):
        assert pytree.tree_structure(found) == pytree.tree_structure(expected)
        assert all(map(torch.equal, tensors_in(found), tensors_in(expected)))
