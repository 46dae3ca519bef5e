"""The plain loops against torch's own, against each other, and against what the papers say of them."""

import copy
import itertools
import re
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stalegrid.studies.reference
from stalegrid import seeds
from stalegrid.partition.cutting import partition
from stalegrid.studies.reference.adl import adl
from stalegrid.studies.reference.async_nesterov import async_nesterov
from stalegrid.studies.reference.ddg import ddg
from stalegrid.studies.reference.dsp import dsp
from stalegrid.studies.reference.fdg import fdg
from stalegrid.studies.reference.features_replay import features_replay
from stalegrid.studies.reference.grid import grid
from stalegrid.studies.reference.paci import paci
from stalegrid.studies.reference.passes import Tensors, backward, forward
from stalegrid.studies.reference.pipedream import pipedream
from stalegrid.studies.reference.pipedream_2bw import pipedream_2bw
from stalegrid.studies.reference.pipemare import pipemare
from stalegrid.studies.reference.pipeoptim import pipeoptim, predicted
from stalegrid.studies.reference.spectrain import spectrain
from tests.cases import CPU, CUTS, Net, build, images

FOLDER = Path(stalegrid.studies.reference.__file__).parent
UPDATES = 6
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
ADAM = partial(torch.optim.Adam, lr=0.01)
ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=UPDATES)
STALE = (4, 2, 1)
X, LABELS = images().tensors

Trained = tuple[list[nn.Module], list[float]]
Method = Callable[..., Trained]

METHODS: dict[str, Method] = {
    "dsp": dsp,
    "features_replay": features_replay,
    "ddg": ddg,
    "pipedream": pipedream,
    "async_nesterov": async_nesterov,
    "fdg": partial(fdg, beta=0.5),
    "adl": partial(adl, M=2),
    "paci": partial(paci, M=2),
    "pipedream_2bw": partial(pipedream_2bw, M=2),
    "pipemare": partial(pipemare, anneal=5),
    "pipeoptim": pipeoptim,
    "spectrain": spectrain,
}


def rows(b: int) -> Tensor:
    return torch.arange(4 * b, 4 * b + 4) % len(X)


def inputs(b: int) -> Tensors:
    return (X[rows(b)],)


def targets(b: int) -> Tensor:
    return LABELS[rows(b)]


def drawing(k: int, b: int) -> Any:
    return seeds.drawing(CPU, 3, "forward", k, b)


@cache
def cut(count: int = 3) -> list[nn.Module]:
    """Return the stages, which the methods leave alone."""
    model = build(Net)
    return partition(model, inputs(0), count, CUTS[count]).stages(model)


def train(method: Method, stages: list[nn.Module] | None = None, **changes: Any) -> Trained:
    """Run a method on the small task, stale unless told otherwise; the double-buffered one has no m."""
    numbers = {"m": STALE, "N": UPDATES, "loss": nn.CrossEntropyLoss(), "optimizer": SGD, "scheduler": ONE_CYCLE}
    numbers |= {"inputs": inputs, "targets": targets, "drawing": drawing} | changes
    if isinstance(method, partial) and method.func is pipedream_2bw:
        del numbers["m"]
    return method(cut() if stages is None else stages, **numbers)


def train_grid(**changes: Any) -> Trained:
    """Run the grid's one group."""
    common: dict[str, Any] = {
        "S": 1,
        "inputs": lambda s, b: inputs(b),
        "targets": lambda s, b: targets(b),
        "drawing": lambda s, k, b: drawing(k, b),
    }
    modules, losses = train(grid, **common, **changes)
    return modules[0], losses[0]


@cache
def torch_loop(updates: int = UPDATES, micro_batches: int = 1, count: int = 3) -> Trained:
    """Train the composed stages as any PyTorch user would."""
    stages = copy.deepcopy(cut(count))
    optimizer = SGD([p for f in stages for p in f.parameters()])
    scheduler = ONE_CYCLE(optimizer)
    losses = []
    for n in range(updates):
        total = 0.0
        for b in range(n * micro_batches, (n + 1) * micro_batches):
            x = inputs(b)
            for k, f in enumerate(stages):
                with drawing(k, b):
                    y = f(*x)
                x = y if isinstance(y, tuple) else (y,)
            loss = nn.functional.cross_entropy(*x, targets(b))
            loss.backward(torch.tensor(1.0 / micro_batches))
            total += loss.item()
        losses.append(total / micro_batches)
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    return stages, losses


def state(stages: list[nn.Module]) -> list[Tensor]:
    return [t for f in stages for t in f.state_dict().values()]


def same(one: Trained, other: Trained) -> bool:
    """Whether all parameters, running statistics, counters and losses have the same bits."""
    pairs = zip(state(one[0]), state(other[0]), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one[1] == other[1]


ACCUMULATING = ("adl", "paci", "pipedream_2bw")
EXACT = [name for name in METHODS if name not in ACCUMULATING]


@pytest.mark.parametrize("name", EXACT)
def test_without_staleness_a_method_is_torchs_own_loop(name: str) -> None:
    method = fdg if name == "fdg" else METHODS[name]
    assert same(train(method, m=(0, 0, 0), **({"beta": 1.0} if name == "fdg" else {})), torch_loop())


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_paci_without_staleness_is_torchs_own_loop_with_accumulation(micro_batches: int) -> None:
    assert same(train(paci, m=(0, 0, 0), M=micro_batches), torch_loop(micro_batches=micro_batches))


def test_adl_without_staleness_is_torchs_own_loop_with_accumulation_and_no_division() -> None:
    """As many times the rate and the decay of a mean, and as little of the momentum's memory."""
    adds = {"optimizer": partial(torch.optim.SGD, lr=0.125), "scheduler": None}
    averages = {"optimizer": partial(torch.optim.SGD, lr=0.25), "scheduler": None}
    assert same(train(adl, m=(0, 0, 0), M=2, **adds), train(paci, m=(0, 0, 0), M=2, **averages))


@pytest.mark.parametrize("micro_batches", [1, 3])
def test_the_first_update_of_2bw_is_torchs_own_and_the_second_is_not(micro_batches: int) -> None:
    method = partial(pipedream_2bw, M=micro_batches)
    assert same(train(method, N=1), torch_loop(1, micro_batches))
    assert not same(train(method, N=2), torch_loop(2, micro_batches))


@pytest.mark.parametrize("m", [(2, 1, 0), (20, 3, 3)])
def test_methods_that_agree(m: tuple[int, ...]) -> None:
    stashed, current = train(pipedream, m=m), train(fdg, m=m, beta=1.0)
    assert same(stashed, train_grid(m=m, view="stashed"))
    assert same(current, train_grid(m=m, view="current"))
    assert not same(stashed, current)
    assert same(current, train(paci, m=m, M=1))
    assert same(current, train(pipemare, m=m, anneal=1, correct=False))


def test_2bw_is_a_pipeline_one_update_late_everywhere() -> None:
    assert same(train(partial(pipedream_2bw, M=1)), train(pipedream, m=(1, 1, 1)))


@pytest.mark.parametrize("method", [pipeoptim, spectrain])
def test_an_optimizer_without_a_direction_predicts_nothing(method: Method) -> None:
    plain = {"optimizer": partial(torch.optim.SGD, lr=0.1), "scheduler": None}
    assert same(train(method, **plain), train_grid(view="current", **plain))


def test_methods_that_differ() -> None:
    different = ["dsp", "pipedream", "fdg", "adl", "paci", "pipedream_2bw", "pipemare", "pipeoptim", "spectrain"]
    outcomes = {name: train(METHODS[name]) for name in different}
    outcomes["fdg unshrunk"] = train(fdg, beta=1.0)
    outcomes["pipemare without T1"] = train(pipemare, anneal=1)
    outcomes["pipemare without T2"] = train(pipemare, anneal=5, correct=False)
    outcomes["synchronous"] = torch_loop()
    for one, other in itertools.combinations(outcomes, 2):
        assert not same(outcomes[one], outcomes[other]), f"{one} and {other}"


@pytest.mark.parametrize("name", METHODS)
def test_every_method_leaves_its_stages_alone_and_counts_each_batch_once(name: str) -> None:
    stages = copy.deepcopy(cut())
    frozen = next(stages[1].parameters()).requires_grad_(False)
    before = copy.deepcopy(state(stages))
    trained, losses = train(METHODS[name], stages)
    assert all(torch.equal(a, b) for a, b in zip(before, state(stages), strict=True))
    assert torch.equal(next(trained[1].parameters()), frozen)
    counters = [t for f in trained for t in f.buffers() if not t.is_floating_point()]
    assert [int(t) for t in counters] == [UPDATES * (2 if name in ACCUMULATING else 1)] * 2
    assert len(losses) == UPDATES


def test_nothing_but_weight_decay_comes_through_a_beta_of_zero() -> None:
    trained, _ = train(fdg, beta=0.0)
    for start, end in zip(copy.deepcopy(cut()[:-1]), trained[:-1], strict=True):
        optimizer = SGD(list(start.parameters()))
        scheduler = ONE_CYCLE(optimizer)
        for _ in range(UPDATES):
            for p in start.parameters():
                p.grad = torch.zeros_like(p)
            optimizer.step()
            scheduler.step()
        assert all(torch.equal(a, b) for a, b in zip(start.parameters(), end.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(cut()[-1].parameters(), trained[-1].parameters(), strict=True))


@pytest.mark.parametrize("optimizer", [SGD, ADAM, partial(torch.optim.AdamW, lr=0.01, eps=0.1, weight_decay=0.0)])
def test_a_direction_is_that_of_the_last_step(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    f = build(lambda: nn.Linear(3, 2)).double()
    step = optimizer(list(f.parameters()))
    assert all(torch.equal(a, b) for a, b in zip(predicted(f, step, 2), f.parameters(), strict=True))
    draw = torch.Generator().manual_seed(0)
    for _ in range(3):
        before = [p.detach().clone() for p in f.parameters()]
        for p in f.parameters():
            p.grad = torch.randn(p.shape, generator=draw, dtype=torch.float64)
        step.step()
        for w_hat, w, old in zip(predicted(f, step, 3), f.parameters(), before, strict=True):
            torch.testing.assert_close(w_hat, w + 3 * (w - old), rtol=1e-9, atol=1e-9)
            assert not torch.equal(w_hat, w)


def test_a_pass_adds_to_gradients_and_reads_the_weights_that_it_is_given() -> None:
    f = nn.Linear(1, 1, bias=False)
    f.weight.data.fill_(2.0)
    done = forward(f, (torch.tensor([[3.0]]),), True, [torch.tensor([[5.0]])])
    assert done.y[0].item() == 15.0
    assert [g.item() for g in backward(done, (torch.ones(1, 1),), f, [torch.tensor([[7.0]])])] == [7.0]
    assert f.weight.grad.item() == 3.0
    backward(forward(f, (torch.tensor([[4.0]]),), False), (torch.ones(1, 1),), f)
    assert (f.weight.grad.item(), f.weight.item()) == (7.0, 2.0)


def test_an_input_that_is_not_used_has_no_gradient() -> None:
    class First(nn.Linear):
        def forward(self, x: Tensor, unused: Tensor) -> Tensor:
            return super().forward(x)

    f = First(1, 1)
    g = backward(forward(f, (torch.ones(1, 1), torch.ones(2)), True), (torch.ones(1, 1),), f)
    assert g[0] is not None
    assert g[1] is None


@pytest.mark.parametrize("name", ["passes", *METHODS])
def test_a_reference_is_short_and_independent(name: str) -> None:
    text = (FOLDER / f"{name}.py").read_text()
    assert len(text.splitlines()) <= 100
    assert all(
        used.startswith("studies.reference.") for used in re.findall(r"(?:from|import) stalegrid\.?([\w.]*)", text)
    )
