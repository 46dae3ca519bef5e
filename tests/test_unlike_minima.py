"""Groups whose losses have minima of their own: which rules bring all of them to the minimum of the sum.

Group s has the loss ``c_s (w - a_s)^2 / 2``, whose minimum is ``a_s``; that of the sum is ``sum c_s a_s / sum c_s``.
Samples are a stream of which every update takes one for each group in turn, so each group has the same one for ever.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import IterableDataset

from stalegrid.plans.task import Task
from tests.cases import make_settings, record_simulator

CURVATURES = torch.tensor([1.0, 4.0, 2.0, 0.5], dtype=torch.float64)
MINIMA = torch.tensor([[-3.0, 1.0], [1.0, 2.0], [5.0, -2.0], [2.0, 0.0]], dtype=torch.float64)
COMMON = (CURVATURES[:, None] * MINIMA).sum(0) / CURVATURES.sum()
GROUPS = len(CURVATURES)
UNLIKE = "0>1,1>2,2>3,3>0,0>2"


class OneForEach(IterableDataset[Any]):
    """The curvature and the minimum of group 0, 1, ..., S-1, and again."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        while True:
            yield from zip(CURVATURES[:, None].sqrt(), MINIMA, strict=True)


class Scaled(nn.Module):
    """A vector times the root of a curvature, and that root."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.zeros(2, dtype=torch.float64))

    def forward(self, root: Tensor) -> Tensor:
        return torch.cat([root * self.w, root], 1)


def loss(made: Tensor, minimum: Tensor) -> Tensor:
    return (made[:, :2] - made[:, 2:] * minimum).square().sum() / 2


def trained(updates: int = 150, scheduler: Any = None, **changes: Any) -> Tensor:
    """Return what every group ends with, (S, 2)."""
    task = Task(Scaled(), OneForEach(), loss, partial(SGD, lr=0.1), scheduler, None, None, {})
    options = {"method": "exact-diffusion", "batch_size": 1, "log_every": updates} | changes
    settings = make_settings(GROUPS, 1, updates=updates, **options)
    values = record_simulator(task, settings).values[-1]
    return torch.stack([values[s, "w"] for s in range(GROUPS)])


def miss(found: Tensor) -> float:
    """Return how far any group is from the common minimum."""
    return float((found - COMMON).abs().max())


THOROUGH = pytest.mark.thorough


@pytest.mark.parametrize(
    "mixing", ["adapt-then-combine", *(pytest.param(m, marks=THOROUGH) for m in ("combine-while-adapt", "push-sum"))]
)
def test_averaging_at_a_constant_rate_leaves_everybody_off(mixing: str) -> None:
    found = trained(mixing=mixing, topology="0-1,1-2,2-3")
    assert miss(found) > 0.5
    assert miss(found.mean(0)) > 0.1


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "exact-diffusion"},
        pytest.param({"mixing": "gradient-tracking", "period": 2}, marks=THOROUGH),
        {"mixing": "gradient-tracking", "topology": "one-peer-exponential"},
    ],
    ids=str,
)
def test_with_a_correction_all_come_to_the_common_minimum(changes: dict[str, Any]) -> None:
    assert miss(trained(**changes)) < 1e-12


def falling(update: int) -> float:
    return 1 / (1 + update / 10)


@THOROUGH
def test_push_sum_weighs_all_groups_alike_wherever_their_edges_lead() -> None:
    """With a falling rate it comes to the common minimum; sums over rows alone would come to another point."""
    found = trained(300, partial(LambdaLR, lr_lambda=falling), mixing="push-sum", topology=UNLIKE)
    assert miss(found) < 0.05
    # Of rows that sum to 1 on the same edges, groups 1 and 2 would weigh as much as the eigenvector says.
    rows = torch.zeros(GROUPS, GROUPS, dtype=torch.float64)
    for edge in UNLIKE.split(","):
        source, target = map(int, edge.split(">"))
        rows[target, source] = 1.0
    rows = (rows + torch.eye(GROUPS)) / (1 + rows.sum(1, keepdim=True))
    weights = torch.linalg.matrix_power(rows, 500)[0]
    weighed = weights * CURVATURES
    assert miss((weighed[:, None] * MINIMA).sum(0) / weighed.sum()) > 0.1
