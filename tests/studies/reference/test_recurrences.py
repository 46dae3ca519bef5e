"""The plain loops against the same methods written as recurrences over versions, for stages of two numbers each."""

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from stalegrid.studies.reference.adl import adl
from stalegrid.studies.reference.ddg import ddg
from stalegrid.studies.reference.dsp import dsp
from stalegrid.studies.reference.fdg import fdg
from stalegrid.studies.reference.paci import paci
from stalegrid.studies.reference.pipedream_2bw import pipedream_2bw
from stalegrid.studies.reference.pipemare import pipemare
from stalegrid.studies.reference.pipeoptim import pipeoptim
from stalegrid.studies.reference.spectrain import spectrain

N, RATE, MOMENTUM, DECAY, ANNEAL, SHRINK = 9, 0.05, 0.9, 0.9, 6, 0.5
Vector = NDArray[np.float64]


class Product(nn.Module):
    """x -> p q x: the gradient of each number is made with the other."""

    def __init__(self, p: float, q: float) -> None:
        super().__init__()
        self.p, self.q = (nn.Parameter(torch.tensor(v, dtype=torch.float64)) for v in (p, q))

    def forward(self, x: Tensor) -> Tensor:
        return self.p * (self.q * x)


START = [(0.9, 1.1), (1.2, 0.7), (0.8, 1.3)]


def sample(b: int) -> tuple[float, float]:
    return 1.0 + math.sin(b), math.cos(2.0 * b)


def rate(n: int) -> float:
    return RATE * DECAY**n


class History:
    """Weights, momenta and PipeMare's drift at every version; version n is after n updates."""

    def __init__(self, m: Sequence[int], micro_batches: int) -> None:
        self.m, self.micro_batches = m, micro_batches
        self.W = [[np.array(pq)] for pq in START]
        self.V = [[np.zeros(2)] for _ in START]
        self.D = [[np.zeros(2)] for _ in START]

    def version(self, k: int, b: int) -> int:
        """Return the version at which (micro-)batch b is forwarded."""
        return max(0, b - self.m[k]) // self.micro_batches

    def ahead(self, k: int, v: int, s: int) -> Vector:
        return self.W[k][v] - rate(v) * s * self.V[k][v]


At = Callable[[History, int, int, int], Vector]
"""(history, stage, batch, version of now) -> the two numbers that a pass reads."""


def then(h: History, k: int, b: int, n: int) -> Vector:
    return h.W[k][h.version(k, b)]


def now(h: History, k: int, b: int, n: int) -> Vector:
    return h.W[k][n]


def before(h: History, k: int, b: int, n: int) -> Vector:
    return h.W[k][max(0, n - 1)]


def corrected(h: History, k: int, b: int, n: int) -> Vector:
    return h.W[k][n] - min(n, h.m[k]) * h.D[k][n]


def expected_by_then(h: History, k: int, b: int, n: int) -> Vector:
    v = h.version(k, b)
    return h.ahead(k, v, b - v)


def expected_at_forward(h: History, k: int, b: int, n: int) -> Vector:
    v = h.version(k, b)
    return h.ahead(k, v, b - v + (h.m[0] - h.m[k]) // 2)


def expected_at_backward(h: History, k: int, b: int, n: int) -> Vector:
    return h.ahead(k, n, (h.m[0] - h.m[k]) // 2)


def recurrence(
    m: Sequence[int],
    micro_batches: int,
    at_forward: At,
    at_backward: At,
    beta: float = 1.0,
    replay: bool = False,
    rescheduled: bool = False,
    added: bool = False,
) -> tuple[list[Vector], list[float]]:
    h = History(m, micro_batches)
    last, losses = len(START) - 1, []
    for n in range(N):
        gradients = [np.zeros(2) for _ in range(last + 1)]
        total = 0.0
        for b in range(n * micro_batches, (n + 1) * micro_batches):
            x, t = sample(b)
            xs = [x]
            for k in range(last + 1):
                p, q = at_forward(h, k, b, n)
                xs.append(p * q * xs[k])
            total += (xs[-1] - t) ** 2 / 2
            g = xs[-1] - t
            for k in reversed(range(last + 1)):
                made_with = at_backward(h, k, b, n) if replay else at_forward(h, k, b, n)
                if replay and k == last:
                    g = made_with[0] * made_with[1] * xs[k] - t
                if k < last:
                    g *= beta
                p, q = at_backward(h, k, b, n)
                gradients[k] += np.array([g * made_with[1] * xs[k], g * p * xs[k]]) / (1 if added else micro_batches)
                g *= p * q
        losses.append(total / micro_batches)
        for k in range(last + 1):
            shrunk = max(1, min(n, m[k])) ** -(1 - min(n / ANNEAL, 1)) if rescheduled else 1.0
            h.V[k].append(MOMENTUM * h.V[k][n] + gradients[k])
            h.W[k].append(h.W[k][n] - rate(n) * shrunk * h.V[k][n + 1])
            gamma = math.exp(-2.0 / m[k]) if m[k] else 0.0
            drift = gamma * h.D[k][n] + (1 - gamma) * (h.W[k][n + 1] - h.W[k][n])
            h.D[k].append(drift if m[k] else np.zeros(2))
    return [h.W[k][N] for k in range(last + 1)], losses


def train(method: Callable[..., Any], **numbers: Any) -> tuple[list[Vector], list[float]]:
    stages, losses = method(
        [Product(*pq) for pq in START],
        N=N,
        inputs=lambda b: (torch.tensor(sample(b)[0], dtype=torch.float64),),
        targets=lambda b: torch.tensor(sample(b)[1], dtype=torch.float64),
        loss=lambda y, t: (y - t) ** 2 / 2,
        optimizer=partial(torch.optim.SGD, lr=RATE, momentum=MOMENTUM),
        scheduler=partial(torch.optim.lr_scheduler.ExponentialLR, gamma=DECAY),
        drawing=lambda k, b: nullcontext(),
        **numbers,
    )
    return [np.array([f.p.item(), f.q.item()]) for f in stages], losses


CASES: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[At, At], dict[str, Any]]] = {
    "ddg": (ddg, {}, (then, then), {}),
    "dsp": (dsp, {}, (then, now), {"replay": True}),
    "fdg": (fdg, {"beta": SHRINK}, (then, now), {"beta": SHRINK}),
    "pipemare": (pipemare, {"anneal": ANNEAL}, (then, corrected), {"rescheduled": True}),
    "pipeoptim": (pipeoptim, {}, (expected_by_then, now), {}),
    "spectrain": (spectrain, {}, (expected_at_forward, expected_at_backward), {}),
}


def hold(found: tuple[list[Vector], list[float]], wanted: tuple[list[Vector], list[float]]) -> None:
    np.testing.assert_allclose(found[0], wanted[0], rtol=1e-11)
    np.testing.assert_allclose(found[1], wanted[1], rtol=1e-11)


@pytest.mark.parametrize("m", [(2, 1, 0), (4, 2, 1), (0, 0, 0), (20, 3, 3)])
@pytest.mark.parametrize("name", CASES)
def test_one_batch_an_update(name: str, m: tuple[int, ...]) -> None:
    method, numbers, views, rules = CASES[name]
    hold(train(method, m=m, **numbers), recurrence(m, 1, *views, **rules))


@pytest.mark.parametrize(("micro_batches", "m"), [(1, (2, 1, 0)), (2, (2, 1, 0)), (3, (7, 4, 2))])
def test_paci(micro_batches: int, m: tuple[int, ...]) -> None:
    hold(train(paci, m=m, M=micro_batches), recurrence(m, micro_batches, then, now))


@pytest.mark.parametrize(("micro_batches", "m"), [(1, (4, 2, 0)), (2, (4, 2, 0)), (3, (7, 4, 2))])
@pytest.mark.parametrize("beta", [1.0, SHRINK])
def test_adl(micro_batches: int, m: tuple[int, ...], beta: float) -> None:
    expected = recurrence(m, micro_batches, then, now, beta, added=True)
    hold(train(adl, m=m, M=micro_batches, beta=beta), expected)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("micro_batches", [1, 3])
def test_pipedream_2bw(micro_batches: int, reduction: str) -> None:
    expected = recurrence((0, 0, 0), micro_batches, before, before, added=reduction == "sum")
    hold(train(pipedream_2bw, M=micro_batches, reduction=reduction), expected)


def test_the_recurrences_differ() -> None:
    ends = [recurrence((4, 2, 1), 1, *views, **rules)[0] for _, _, views, rules in CASES.values()]
    ends += [recurrence((4, 2, 1), 1, then, now)[0], recurrence((0, 0, 0), 1, before, before)[0]]
    for i, one in enumerate(ends):
        assert all(np.abs(np.array(one) - np.array(other)).max() > 1e-4 for other in ends[:i])
