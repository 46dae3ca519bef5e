"""What docs/semantics.md says of schedules, decay, momentum, clipping, batch-norm, dropout and accumulation."""

from collections.abc import Iterator
from functools import partial
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.optim import SGD, Optimizer
from torch.optim.lr_scheduler import StepLR

import stalegrid
from stalegrid.seeds import drawing
from stalegrid.stages.views.named import VIEWS
from tests.cases import (
    CPU,
    UPDATES,
    compare,
    hold_to_the_loop,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)

DEEP = {"method": "pham-ahn", "staleness": [4, 2, 0]}
"""Three stages, the first four updates late."""


def rates(**changes: Any) -> list[float]:
    task = make_task(scheduler=partial(StepLR, step_size=2, gamma=0.5))
    return [r["lr"] for r in record_simulator(task, make_settings(1, 3, **(DEEP | changes))).records]


def test_a_rate_is_that_of_the_update_not_of_the_forward() -> None:
    assert rates() == [0.1 * 0.5 ** (n // 2) for n in range(UPDATES)]


def test_a_schedule_does_not_see_what_a_correction_makes_of_the_rate() -> None:
    shown = rates(corrections=["inverse-staleness"])
    assert shown == pytest.approx([0.1 * 0.5 ** (n // 2) for n in range(UPDATES)])  # of the last stage, never stale
    assert rates(corrections=["inverse-staleness"], staleness=[3, 2, 1])[1:] == [
        0.1 * 0.5 ** (n // 2) for n in range(1, UPDATES)
    ]
    assert rates(corrections=["inverse-staleness"], staleness=[4, 4, 4])[4:] == [
        0.1 * 0.5 ** (n // 2) * 0.25 for n in range(4, UPDATES)
    ]


class NoGradient(stalegrid.Correction):
    """Leaves nothing but what the optimizer adds of itself."""

    def correct(self, update: stalegrid.Update) -> None:
        for p in self.site.weights.trainable():
            if p.grad is not None:
                p.grad.zero_()


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_weight_decay_uses_the_weights_of_now(optimizer: str) -> None:
    make = {
        "sgd": partial(SGD, lr=0.1, weight_decay=0.5),
        "adamw": partial(torch.optim.AdamW, lr=0.1, weight_decay=0.5),
    }
    task = make_task(optimizer=make[optimizer], scheduler=None)
    found = run_simulator(task, make_settings(1, 3, **DEEP, corrections=[NoGradient]))
    for name, start in task.model.named_parameters():
        value = start.detach().clone()
        for _ in range(UPDATES):
            value = value - 0.1 * (0.5 * value) if optimizer == "sgd" else value * (1 - 0.1 * 0.5)
        assert torch.allclose(found.parameters[0, name], value, rtol=1e-6, atol=0)


def test_shrinking_leaves_weight_decay_alone() -> None:
    made: list[Tensor] = []
    for corrections in (["shrink=1e-30"], ["shrink=1e-30", "shrink=1e-6"]):
        found = run_simulator(make_task(scheduler=None), make_settings(1, 3, **DEEP, corrections=corrections))
        made.append(found.parameters[0, "conv1.weight"])
    start = dict(make_task().model.named_parameters())["conv1.weight"].detach()
    assert torch.equal(*made)
    assert float(made[0].norm()) < float(start.norm())


class Norms(stalegrid.Correction):
    """Notes the norm of the gradient that the optimizer is given."""

    seen: ClassVar[dict[int, list[float]]] = {}

    def stepped(self, update: stalegrid.Update) -> None:
        square = sum(float(p.grad.double().square().sum()) for p in self.site.weights.trainable() if p.grad is not None)
        self.seen.setdefault(self.site.unit.stage, []).append(square**0.5)


@pytest.mark.filterwarnings("ignore:training adds to")
def test_each_stage_is_clipped_by_its_own_norm_after_all_corrections() -> None:
    Norms.seen = {}
    settings = make_settings(1, 3, **DEEP, clip=0.05, corrections=["shrink=0.5", Norms])
    run_simulator(make_task(), settings)
    assert set(Norms.seen) == {0, 1, 2}
    for norms in Norms.seen.values():
        applied = norms[-UPDATES:]  # before, the trial of the plan
        assert max(applied) <= 0.05 * (1 + 1e-5)
        assert max(applied) > 0.05 * (1 - 1e-3)


def test_clipping_one_stage_is_clipping_the_model() -> None:
    task = make_task()
    found = run_simulator(task, make_settings(1, 1, method="sgd", clip=0.3))

    class Clipped(SGD):
        """What a user of plain torch would write."""

        def step(self, closure: Any = None) -> Any:
            torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 0.3)
            return super().step(closure)

    plain = make_task(optimizer=partial(Clipped, lr=0.1, momentum=0.9, weight_decay=0.01))
    compare(found, run_simulator(plain, make_settings(1, 1, method="sgd")))


@pytest.mark.parametrize("view", VIEWS)
def test_running_statistics_count_every_batch_once(view: str) -> None:
    changes: dict[str, Any] = {"micro_batches": 4} if view == "double-buffered" else {}
    found = run_simulator(make_task(), make_settings(1, 3, **DEEP, view=view, **changes))
    batches = UPDATES * changes.get("micro_batches", 1)
    assert int(found.mean["norm1.num_batches_tracked"]) == batches
    assert int(found.mean["norm2.num_batches_tracked"]) == batches


def test_running_statistics_are_the_same_whether_or_not_a_stage_is_forwarded_again() -> None:
    frozen = make_task(optimizer=partial(SGD, lr=0.0), scheduler=None)
    compare(
        *(run_simulator(frozen, make_settings(1, 3, **DEEP, view=view)) for view in ("stashed", "recomputed")),
    )


class Mask(nn.Module):
    """Keeps what dropout drew."""

    drawn: ClassVar[list[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        made = torch.rand(x.shape)
        Mask.drawn.append(made)
        return x * (made > 0.5)


def test_a_second_forward_draws_the_same() -> None:
    from stalegrid.programs.grid import Grid, Unit
    from stalegrid.programs.pipeline import Program
    from stalegrid.programs.schedules import stale
    from stalegrid.stages.recomputing import RecomputingStage
    from stalegrid.stages.site import Site
    from stalegrid.stages.views.recomputed import Recomputed

    module = nn.Sequential(nn.Linear(3, 3), Mask())
    site = Site.build(Unit(0, 0), Program(Grid(1, 1), stale([2]), 4), module, partial(SGD, lr=0.1))
    stage = RecomputingStage(module, site.weights, Recomputed(site), False)
    Mask.drawn = []
    for batch in (0, 1):
        with drawing(CPU, 0, "forward", batch):
            stage.forward(batch, (torch.ones(2, 3),))
    site.weights.flat.add_(1.0)
    site.weights.version += 1
    with drawing(CPU, 0, "forward", 0):
        stage.recompute(0)
    first, other, again = Mask.drawn
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.filterwarnings("ignore:training adds to")
def test_momentum_takes_gradients_in_the_order_of_their_application() -> None:
    """With momentum 1 and no decay, the buffer is the sum of all gradients so far, whatever their age."""
    seen: list[tuple[Tensor, Tensor]] = []

    class Sums(stalegrid.Correction):
        total: Tensor | None = None

        def stepped(self, update: stalegrid.Update) -> None:
            (p, *_) = self.site.weights.trainable()
            assert p.grad is not None
            if update.index == 0:
                self.total = None
            self.total = p.grad.clone() if self.total is None else self.total + p.grad
            seen.append((self.total, self.site.optimizer.state[p]["momentum_buffer"].clone()))

    def optimizer(parameters: list[nn.Parameter]) -> Optimizer:
        return SGD(parameters, lr=0.01, momentum=1.0)

    task = make_task(optimizer=optimizer, scheduler=None)
    run_simulator(task, make_settings(1, 3, **DEEP, corrections=[Sums]))
    assert len(seen) >= 3 * UPDATES
    assert all(torch.equal(total, buffer) for total, buffer in seen)


def staleness_of_updates(**changes: Any) -> Iterator[list[int]]:
    for record in record_simulator(make_task(), make_settings(1, 3, **changes)).records:
        yield record["staleness"]["(0,0)"]["histogram"]


def test_accumulation_counts_staleness_in_updates() -> None:
    # Six batches ahead, four an update: two batches of an update were forwarded two versions ago, two one version ago.
    *_, last = staleness_of_updates(method="pham-ahn", staleness=[6, 3, 0], micro_batches=4)
    assert last == [0, 2, 2]
    *_, last = staleness_of_updates(method="pipedream-2bw", micro_batches=4)
    assert last == [0, 4]


@pytest.mark.parametrize("method", ["paci", "pipedream-2bw", "gpipe"])
def test_a_third_is_a_third_in_float64(method: str) -> None:
    settings = make_settings(1, 3, method=method, micro_batches=3, batch_size=6, dtype="float64")
    hold_to_the_loop(make_task(), settings)
