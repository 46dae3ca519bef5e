"""Asynchronous training with a parameter server against torch's own loop, theory, and numbers worked out by hand."""

import copy
import math
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stalegrid import seeds
from stalegrid.studies.reference.hardsync import hardsync
from stalegrid.studies.reference.softsync import softsync
from tests.cases import CPU, Net, build, images

UPDATES = 6
SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.01)
PLAIN = partial(torch.optim.SGD, lr=0.1)
ONE_CYCLE = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=UPDATES)
HALVES = ("exponential", math.log(2))
"""A gradient of staleness tau counts 2^-tau."""
X, LABELS = images().tensors

Trained = tuple[nn.Module, list[float]]


def rows(s: int, b: int) -> Tensor:
    return torch.arange(4 * b + 20 * s, 4 * b + 20 * s + 4) % len(X)


def drawing(s: int, k: int, b: int) -> AbstractContextManager[None]:
    return seeds.drawing(CPU, 3, "forward", s, k, b)


def train(method: Callable[..., Trained], **changes: Any) -> Trained:
    """Run a method on the small task for some learners, who take turns where turns are taken."""
    numbers: dict[str, Any] = {"learners": 3, "N": UPDATES, "loss": nn.CrossEntropyLoss(), "optimizer": SGD}
    numbers |= {"inputs": lambda s, b: (X[rows(s, b)],), "targets": lambda s, b: LABELS[rows(s, b)]}
    numbers |= {"scheduler": ONE_CYCLE, "drawing": drawing, "model": build(Net)} | changes
    if method is softsync:
        numbers = {"c": 1, "order": [*range(numbers["learners"])] * UPDATES} | numbers
    return method(numbers.pop("model"), **numbers)


@cache
def torch_loop() -> Trained:
    """Train as any PyTorch user would."""
    model = build(Net)
    optimizer = SGD(model.parameters())
    scheduler = ONE_CYCLE(optimizer)
    losses = []
    for n in range(UPDATES):
        with drawing(0, 0, n):
            loss = nn.functional.cross_entropy(model(X[rows(0, n)]), LABELS[rows(0, n)])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        losses.append(loss.item())
    return model, losses


def same(one: Trained, other: Trained) -> bool:
    """Whether all parameters, running statistics, counters and losses have the same bits."""
    pairs = zip(one[0].state_dict().values(), other[0].state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs) and one[1] == other[1]


@pytest.mark.parametrize("method", [hardsync, softsync])
def test_one_learner_is_torchs_own_loop(method: Callable[..., Trained]) -> None:
    assert same(train(method, learners=1), torch_loop())


@pytest.mark.parametrize("method", [hardsync, softsync])
def test_momentum_of_one_learner_is_that_of_the_server(method: Callable[..., Trained]) -> None:
    of_server = train(method, learners=1, optimizer=partial(PLAIN, momentum=0.9), scheduler=None)
    assert same(train(method, learners=1, optimizer=PLAIN, scheduler=None, momentum=0.9), of_server)
    assert not same(train(method, learners=1, optimizer=PLAIN, scheduler=None), of_server)


def test_learners_who_take_turns_agree_with_learners_in_step_for_one_update() -> None:
    assert same(train(softsync, c=3, N=1), train(hardsync, N=1))
    assert not same(train(softsync, c=3, N=2), train(hardsync, N=2))


def test_more_learners_in_step_are_a_larger_batch() -> None:
    model = build(partial(Net, plain=True))
    many, losses = train(hardsync, model=model)
    one, expected = train(
        hardsync,
        model=model,
        learners=1,
        inputs=lambda s, b: (torch.cat([X[rows(s, b)] for s in range(3)]),),
        targets=lambda s, b: torch.cat([LABELS[rows(s, b)] for s in range(3)]),
    )
    assert losses == pytest.approx(expected, rel=1e-5)
    for p, q in zip(many.parameters(), one.parameters(), strict=True):
        torch.testing.assert_close(p, q, rtol=1e-4, atol=1e-5)


def test_rules_are_equal_where_nothing_is_staler_than_they_forgive() -> None:
    rules = [("exponential", 0.0), ("dc", 0.0), "inverse", ("exponential", 0.5), ("dc", 0.5)]
    for learners, equal in ((1, 5), (2, 3), (3, 2)):  # in turns the staleness is at most learners - 1
        constant = train(softsync, learners=learners)
        assert [same(train(softsync, learners=learners, rule=rule), constant) for rule in rules] == [
            *[True] * equal,
            *[False] * (5 - equal),
        ]


@pytest.mark.parametrize("method", [hardsync, softsync])
def test_the_model_is_left_alone_and_may_be_frozen_in_part(method: Callable[..., Trained]) -> None:
    model = build(Net).eval()
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    trained, losses = train(method, model=model)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert not model.training
    assert all(p.grad is None for p in [*model.parameters(), *trained.parameters()])
    moved = {name for name, t in trained.state_dict().items() if not torch.equal(t, before[name])}
    assert moved == before.keys() - {"conv1.weight"}
    assert len(losses) == UPDATES


class Weight(nn.Module):
    """One number; its inputs go into a sum and a count."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))
        self.unused = nn.Parameter(torch.tensor(2.0))
        self.register_buffer("seen", torch.tensor(0.0))
        self.register_buffer("count", torch.tensor(0))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += x
        self.count += 1
        return self.w


def train_weight(method: Callable[..., Trained] = softsync, start: float = 64.0, **changes: Any) -> Trained:
    """Descend w^2 / 2, whose gradient is w, in quarters, by two learners."""
    numbers: dict[str, Any] = {"learners": 2, "optimizer": partial(torch.optim.SGD, lr=0.25)}
    numbers |= {"loss": lambda w, _: w * w / 2, "drawing": lambda s, k, b: nullcontext()}
    numbers |= {"inputs": lambda s, b: (torch.tensor(0.0),), "targets": lambda s, b: torch.tensor(0.0)}
    return method(Weight(start), **(numbers | changes))


# Weights that are pulled, both at 64: learner 0 makes 48 of them with its 64; learner 1 is late with its 64, not
# with its next; learner 0 then has 48 still, and is two updates late.
@pytest.mark.parametrize(
    ("rule", "momentum", "weights", "losses"),
    [
        ("constant", None, [48, 32, 24, 12], [64, 64, 32, 48]),
        ("inverse", None, [48, 32, 24, 18], [64, 64, 32, 48]),
        (HALVES, None, [48, 40, 30, 27], [64, 64, 40, 48]),
        (("dc", 2.0**-12), None, [48, 36, 27, 17.953125], [64, 64, 36, 48]),
        ("constant", 0.5, [48, 32, 16, -4], [64, 64, 32, 48]),
        ("inverse", 0.5, [48, 32, 16, 6], [64, 64, 32, 48]),
    ],
)
def test_each_gradient_by_hand(rule: Any, momentum: float | None, weights: list[float], losses: list[float]) -> None:
    for N in range(1, 5):  # noqa: N806
        trained, found = train_weight(order=[0, 1, 1, 0], c=1, N=N, rule=rule, momentum=momentum)
        assert trained.w.item() == weights[N - 1]
        assert found == [w * w / 2 for w in losses[:N]]


# Two 64s make 48, which only the second to deliver pulls; 48 and a 64 that is one update late make 34.  Or learner 1
# alone makes 48 and 36, and learner 0 then comes with a 64 that is two updates late, first or last of the third update.
@pytest.mark.parametrize(
    ("rule", "late", "very_late"), [("constant", 34, 23.5), ("inverse", 34, 27.5), (HALVES, 38, 29.5)]
)
def test_two_gradients_an_update_by_hand(rule: Any, late: float, very_late: float) -> None:
    trained, losses = train_weight(order=[0, 1, 1, 0], c=2, N=2, rule=rule)
    assert (trained.w.item(), losses) == (late, [64**2 / 2, (48**2 + 64**2) / 4])
    for last in ([0, 1], [1, 0]):
        trained, losses = train_weight(order=[1, 1, 1, 1, *last], c=2, N=3, rule=rule)
        assert (trained.w.item(), losses) == (very_late, [64**2 / 2, 48**2 / 2, (36**2 + 64**2) / 4])


def test_learners_in_step_by_hand() -> None:
    slopes = {(0, 0): 8.0, (1, 0): 16.0, (0, 1): -32.0, (1, 1): 64.0}
    numbers: dict[str, Any] = {"targets": lambda s, b: torch.tensor(slopes[s, b]), "loss": lambda w, slope: w * slope}
    trained, losses = train_weight(hardsync, N=2, **numbers)
    assert (trained.w.item(), losses) == (64 - 3 - 4, [64 * 12, 61 * 16])
    trained, _ = train_weight(hardsync, N=2, momentum=0.5, **numbers)
    assert trained.w.item() == 64 - 3 - (-32 + 4 + 64 + 8) / 2 / 4


@pytest.mark.parametrize("learners", [1, 2, 4])
def test_learners_who_take_turns_are_as_late_as_there_are_others(learners: int) -> None:
    counted = []

    def watched(named: list[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
        step = torch.optim.SGD(named, lr=0.25)
        step.register_step_pre_hook(lambda *_: counted.append(named[0][1].grad.item()))
        return step

    order = [*range(learners)] * 3
    train_weight(learners=learners, order=order, c=1, N=len(order), optimizer=watched, loss=lambda w, _: w, rule=HALVES)
    assert counted == [0.5**tau for tau in [*range(learners), *[learners - 1] * 2 * learners]]


def test_gradients_are_added_in_the_order_of_delivery() -> None:
    numbers: dict[str, Any] = {"learners": 3, "N": 1, "start": 0.0, "loss": lambda w, slope: w * slope}
    numbers["targets"] = lambda s, b: torch.tensor([1.0, 2.0**24, -(2.0**24)][s])  # the 1 is lost unless it comes last
    assert train_weight(hardsync, **numbers)[0].w.item() == 0
    assert train_weight(c=3, order=[0, 1, 2], **numbers)[0].w.item() == 0
    assert train_weight(c=3, order=[1, 2, 0], **numbers)[0].w.item() != 0


def test_every_learner_counts_its_own_batches() -> None:
    asked: dict[str, list[tuple[int, ...]]] = {"inputs": [], "targets": [], "drawing": []}

    def asking(name: str, answer: Any) -> Callable[..., Any]:
        return lambda *which: (asked[name].append(which), answer)[1]

    numbers = {"inputs": (torch.tensor(0.0),), "targets": torch.tensor(0.0), "drawing": nullcontext()}
    watched = {name: asking(name, answer) for name, answer in numbers.items()}
    train_weight(order=[0, 1, 1, 0, 1, 1], c=1, N=5, **watched)
    batches = [(0, 0), (1, 0), (1, 1), (0, 1), (1, 2)]
    train_weight(hardsync, N=2, **watched)
    batches += [(0, 0), (1, 0), (0, 1), (1, 1)]
    assert asked["inputs"] == asked["targets"] == batches
    assert asked["drawing"] == [(s, 0, b) for s, b in batches]


def test_buffers_are_the_learners_mean_and_the_last_ones_count() -> None:
    def inputs(s: int, b: int) -> tuple[Tensor]:
        return (torch.tensor(10.0 ** (2 * s + b)),)

    def buffers(trained: Trained) -> tuple[float, int]:
        return trained[0].seen.item(), trained[0].count.item()

    found = [buffers(train_weight(order=[1, 1, 0, 1, 1, 0], c=2, N=N, inputs=inputs)) for N in (1, 2, 3)]
    assert found == [((100 + 1100) / 2, 2), ((1 + 11100) / 2, 3), ((111100 + 11) / 2, 2)]
    assert buffers(train_weight(hardsync, N=2, inputs=inputs)) == ((11 + 1100) / 2, 2)


@pytest.mark.parametrize("method", [hardsync, partial(softsync, order=[0, 1], c=1)])
def test_a_parameter_without_gradient_is_not_decayed(method: Callable[..., Trained]) -> None:
    trained, _ = train_weight(method, N=2, optimizer=partial(torch.optim.SGD, lr=0.25, weight_decay=0.5))
    assert trained.unused.item() == 2


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="linear"):
        train_weight(order=[0], c=1, N=1, rule="linear")
    with pytest.raises(IndexError):
        train_weight(order=[0, 1, 0], c=2, N=2)
