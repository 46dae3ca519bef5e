"""A quadratic whose Hessian, noise and minimum are known, cut into stages that depend on each other, and runs on it."""

from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.agents import build_agents
from stalegrid.diagnosis import Diagnosis, read_fixed
from stalegrid.engines import simulate
from stalegrid.limits import Limit, Limits
from stalegrid.plans import Plan, Task
from tests.cases import CPU, Recorder, make_plan, make_settings, make_task

RATE = 0.02
SAMPLES = 32


class Slot(nn.Module):
    """Adds what it trains to columns of its own."""

    def __init__(self, first: int, width: int) -> None:
        super().__init__()
        self.first = first
        self.w = nn.Parameter(torch.zeros(width, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        return x + nn.functional.pad(self.w, (self.first, x.shape[1] - self.first - len(self.w)))


class Times(nn.Module):
    """Multiplies by a matrix."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("matrix", matrix)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        matrix: Tensor = self.matrix
        return x @ matrix.T


def squares(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.square().sum(1).mean() / 2


def coupled(widths: Sequence[int]) -> Tensor:
    """Return a matrix that couples all stages."""
    n = sum(widths)
    draw = torch.Generator().manual_seed(7)
    return torch.eye(n, dtype=torch.float64) + torch.randn(n, n, generator=draw, dtype=torch.float64) / 3


@dataclass(frozen=True)
class Quadratic:
    """The function ``F(w) = mean_i ||A (x_i + w)||^2 / 2``: its Hessian is ``A^T A``, the same for every sample.

    Args:
        matrix: A, shape (n, n).
        widths: elements that each stage trains.
        points: x_i, shape (N, n).
        labels: by which samples may be dealt to groups.
    """

    matrix: Tensor
    widths: tuple[int, ...]
    points: Tensor
    labels: Tensor

    @classmethod
    def drawn(cls, widths: Sequence[int], matrix: Tensor | None = None) -> "Quadratic":
        n, draw = sum(widths), torch.Generator().manual_seed(3)
        points = 1 + torch.randn(SAMPLES, n, generator=draw, dtype=torch.float64)
        labels = torch.zeros(SAMPLES, dtype=torch.int64)
        return cls(coupled(widths) if matrix is None else matrix, tuple(widths), points, labels)

    @property
    def hessian(self) -> Tensor:
        return self.matrix.T @ self.matrix

    def rows(self, stage: int) -> slice:
        first = sum(self.widths[:stage])
        return slice(first, first + self.widths[stage])

    def task(self, **changes: Any) -> Task:
        firsts = [sum(self.widths[:k]) for k in range(len(self.widths))]
        slots = [Slot(first, width) for first, width in zip(firsts, self.widths, strict=True)]
        given = {
            "model": nn.Sequential(*slots, Times(self.matrix)),
            "data": TensorDataset(self.points, self.labels),
            "loss": squares,
            "optimizer": partial(torch.optim.SGD, lr=RATE),
            "scheduler": None,
        }
        return make_task(**(given | changes))

    def settings(self, groups: int = 1, **changes: Any) -> Any:
        given = {
            "method": "pham-ahn",
            "cuts": [str(k) for k in range(1, len(self.widths))],
            "updates": 12,
            "evaluate_every": 0.0,
            "diagnose": 1,
        }
        return make_settings(groups, len(self.widths), **(given | changes))


@dataclass(frozen=True)
class Run:
    """A run that was diagnosed.

    Args:
        quadratic: that was trained.
        plan: of it.
        records: diagnoses by version.
        weights: of each version from 0, of all groups, shape (S, n).
    """

    quadratic: Quadratic
    plan: Plan
    records: dict[int, dict[str, Any]]
    weights: list[Tensor]

    def late(self, version: int) -> Tensor:
        """Return what late gradients are of: the weights of each stage as many updates before as it is late."""
        bounds = self.plan.bounds
        parts = [self.weights[version - m][:, self.quadratic.rows(k)] for k, m in enumerate(bounds)]
        return torch.cat(parts, 1)


def unlimited(plan: Plan, *_: Any) -> Limits:
    """Return limits of which nothing is known."""
    return Limits(tuple(Limit(k, m) for k, m in enumerate(plan.bounds)), None, RATE)


def diagnosed(
    quadratic: Quadratic, groups: int = 1, *, task: Task | None = None, limits: bool = False, **changes: Any
) -> Run:
    """Train a quadratic on the simulator and diagnose it, without limits of the rate: they take longer than the rest.

    Args:
        quadratic: that is trained.
        groups: S.
        task: how.
        limits: whether they are measured all the same.
        changes: of settings.
    """
    task = quadratic.task() if task is None else task
    # Evaluated at every version, so that the weights of all of them are known.
    settings = quadratic.settings(groups, **changes)
    per_epoch = make_plan(task, settings).updates_per_epoch
    settings = quadratic.settings(groups, **(changes | {"evaluate_every": 1 / per_epoch}))
    plan = make_plan(task, settings)
    sink, diagnoses = Recorder(plan), partial(Diagnosis, task, plan, read_fixed(task, plan))
    with nullcontext() if limits else patch("stalegrid.diagnosis.diagnosis.limits_at", unlimited):
        simulate(plan.program, build_agents(task, plan, plan.program.agents, CPU, sink, diagnoses=diagnoses))
    stages = range(plan.grid.stages)
    found = [torch.stack([torch.cat([v[s, f"{k}.w"] for k in stages]) for s in range(groups)]) for v in sink.values]
    assert len(found) == plan.updates
    weights = [torch.zeros_like(found[0]), *found]
    return Run(quadratic, plan, {record["version"]: record for record in sink.diagnoses}, weights)
