"""The limits of ordinary models, and what of them is not known."""

from dataclasses import replace
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.consensus import CombineWhileAdapt
from stalegrid.errors import ConfigError
from stalegrid.limits import Limits, lines, measure_limits, table, warnings
from stalegrid.limits.losses import Losses, read_sample
from stalegrid.limits.rules import Unknown, rounds_of
from stalegrid.plans import Task
from stalegrid.seeds import drawing
from stalegrid.stability import Rounds
from stalegrid.stages import Stashed
from tests.cases import CPU, make_plan, make_settings, make_task

SGD = partial(torch.optim.SGD, lr=0.1)


def smooth() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3), nn.Tanh(), nn.Linear(3, 2)).double()


def points() -> TensorDataset:
    draw = torch.Generator().manual_seed(2)
    return TensorDataset(
        torch.randn(24, 3, generator=draw, dtype=torch.float64), torch.randint(0, 2, (24,), generator=draw)
    )


def case(**changes: Any) -> tuple[Task, dict[str, Any]]:
    """Return a small smooth task, and settings that cut it into two stages."""
    of_task = {k: changes.pop(k) for k in ("optimizer", "scheduler", "model", "data", "loss") if k in changes}
    task = make_task(**{"model": smooth(), "data": points(), "optimizer": SGD, "scheduler": None} | of_task)
    return task, {"method": "dsp", "view": "stashed", "cuts": ["2"], "staleness": [2, 0]} | changes


def found(batches: int = 2, stages: int = 2, groups: int = 1, **changes: Any) -> Limits:
    task, given = case(**changes)
    return measure_limits(task, make_plan(task, make_settings(groups, stages, **given)), CPU, batches)


def hessian(task: Task, given: dict[str, Any], batches: int) -> Tensor:
    """Return the whole Hessian of the mean loss, row by row, from torch's own."""
    plan = make_plan(task, make_settings(1, 2, **given))
    model = task.model
    names = [name for name, _ in model.named_parameters()]
    shapes = [p.shape for p in model.parameters()]
    samples = Losses(task, plan, read_sample(task, plan.training, 1, 1, batches), CPU)._batches

    def loss(flat: Tensor) -> Tensor:
        parts = torch.split(flat, [s.numel() for s in shapes])
        own = {n: part.view(s) for n, part, s in zip(names, parts, shapes, strict=True)}
        each = [task.loss(torch.func.functional_call(model, own, tuple(x)), y) for x, y in samples]
        return sum(each, torch.zeros(())) / batches

    at = torch.cat([p.detach().flatten() for p in model.parameters()])
    value: Tensor = torch.autograd.functional.hessian(loss, at)  # type: ignore[no-untyped-call]
    return value


def test_curvatures_are_the_largest_of_the_blocks_of_the_hessian() -> None:
    task, given = case()
    whole = hessian(task, given, 2)
    first = 3 * 4 + 4
    expected = [torch.linalg.eigvalsh(block)[-1] for block in (whole[:first, :first], whole[first:, first:], whole)]
    for limit, value in zip(found().each, expected, strict=True):
        assert limit.settled
        assert limit.trusted
        assert limit.curvature == pytest.approx(float(value), rel=2e-3)


def test_the_limit_of_a_stage_is_the_closed_form_over_its_curvature() -> None:
    first, second, both = found().each
    assert first.curvature is not None and second.curvature is not None and both.curvature is not None  # noqa: PT018
    assert first.rate == pytest.approx(0.6180339887 / first.curvature)
    assert first.at_once == pytest.approx(2 / first.curvature)
    assert second.rate == second.at_once == pytest.approx(2 / second.curvature)
    assert both.rate is not None
    assert 0.6180339887 / both.curvature < both.rate < 2.0001 / both.curvature


def test_measurements_are_the_same_every_time_and_change_nothing() -> None:
    task, given = case()
    plan = make_plan(task, make_settings(1, 2, **given))
    before = {n: t.clone() for n, t in task.model.state_dict().items()}
    with drawing(CPU, 5, "elsewhere"):
        one = measure_limits(task, plan, CPU)
    assert one == measure_limits(task, plan, CPU)
    assert all(torch.equal(t, before[n]) for n, t in task.model.state_dict().items())
    assert all(p.grad is None for p in task.model.parameters())


def test_a_second_forward_of_the_last_stage_makes_its_loss_anew() -> None:
    late = found(view="recomputed", staleness=[3, 1]).each[1]
    assert late.rate == pytest.approx(late.at_once)
    assert found(view="current", staleness=[3, 1]).each[1].rate < late.rate / 1.9  # type: ignore[operator]


def test_a_second_forward_lets_a_part_of_the_curvature_be_of_now() -> None:
    stashed, recomputed = (found(view=view).each[0] for view in ("stashed", "recomputed"))
    assert stashed.fresh == 0.0
    assert recomputed.fresh != 0.0
    assert stashed.curvature == recomputed.curvature
    assert stashed.rate != recomputed.rate


def test_views_of_which_nothing_is_derived_say_so() -> None:
    shown = found(view="current")
    assert shown.each[0].taken
    assert any("not derived" in line for line in lines(shown))
    assert not any("not derived" in line for line in lines(found()))


def test_micro_batches_are_late_by_unlike_numbers_of_updates() -> None:
    one, four = found(), found(micro_batches=4, staleness=[2, 0])
    # Two of four micro-batches are forwarded an update before their own.
    assert four.each[0].staleness == 1
    assert four.each[0].rate is not None and one.each[0].rate is not None  # noqa: PT018
    assert four.each[0].rate * four.each[0].curvature > one.each[0].rate * one.each[0].curvature  # type: ignore[operator]


def test_weight_decay_is_of_the_weights_of_now() -> None:
    plain, decayed = (found(optimizer=partial(SGD, weight_decay=d)).each[0] for d in (0.0, 0.5))
    assert plain.curvature == decayed.curvature
    assert decayed.rate is not None and plain.rate is not None  # noqa: PT018
    assert decayed.rate < plain.rate


def test_shrinking_lets_a_stage_bear_more() -> None:
    plain, shrunk = found(), found(corrections=["shrink=0.5"])
    assert shrunk.each[0].rate == pytest.approx(2 * plain.each[0].rate)  # type: ignore[operator]
    assert shrunk.each[1].rate == plain.each[1].rate
    assert shrunk.each[2].rate is None
    assert found(clip=1.0).each == plain.each


def adaptive(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=0.01)


class OwnView(Stashed):
    exact = True


class OwnSGD(torch.optim.SGD):
    pass


def halves(named_parameters: Any) -> torch.optim.Optimizer:
    sorted_ones: dict[bool, list[Tensor]] = {True: [], False: []}
    for name, p in named_parameters:
        sorted_ones["bias" in name].append(p)
    return torch.optim.SGD([{"params": sorted_ones[True]}, {"params": sorted_ones[False], "lr": 0.05}], lr=0.1)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"optimizer": adaptive}, "not known for this optimizer (AdamW"),
        ({"optimizer": partial(OwnSGD, lr=0.1)}, "not known for this optimizer (OwnSGD"),
        ({"optimizer": halves}, "unlike rates"),
        ({"optimizer": partial(SGD, maximize=True)}, "climbs"),
        ({"view": OwnView}, "not known for a view of your own"),
        ({"corrections": ["dc-asgd"]}, "not known with this correction (dc-asgd)"),
        ({"corrections": ["pipemare-rate"]}, "not known with this correction (pipemare-rate)"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value),
)
def test_what_is_not_known_is_said_and_no_number_made_up(changes: dict[str, Any], why: str) -> None:
    shown = found(**changes)
    for limit in (shown.each[0], shown.each[-1]):  # of a stage, and of all together
        assert limit.rate is None
        assert why in limit.why
        assert limit.curvature is not None
    assert not shown.exceeded


def test_groups_that_mix_before_their_step_bear_less() -> None:
    alone, mixed = found(), found(groups=2, mixing="combine-while-adapt")
    assert mixed.left == pytest.approx(0.0, abs=1e-9)
    assert mixed.each[1].rate == pytest.approx(mixed.each[1].alone / 2, rel=1e-6)  # type: ignore[operator]
    assert alone.left is None
    reduced = found(groups=2, mixing="all-reduce")
    assert all(limit.rate == limit.alone for limit in reduced.each)


def test_a_mixing_of_another_rule_is_not_taken_for_a_known_one() -> None:
    task, given = case(mixing="combine-while-adapt")
    plan = make_plan(task, make_settings(2, 2, **given))
    assert isinstance(rounds_of(plan), Rounds)
    momentum = replace(plan, momentum=True)
    assert rounds_of(momentum) == Unknown("not known where momentum is mixed too")
    assert isinstance(rounds_of(replace(plan, mixing=OwnMixing())), Unknown)


class OwnMixing(CombineWhileAdapt):
    """Whatever it does."""


def test_what_is_frozen_has_no_limit() -> None:
    model = smooth()
    for p in model[0].parameters():
        p.requires_grad = False
    frozen, trained = found(model=model).each
    assert (frozen.curvature, frozen.rate, frozen.why) == (None, None, "trains nothing")
    assert trained.rate is not None


def test_the_highest_rate_is_that_of_the_schedule() -> None:
    cycle = partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.7, total_steps=20, cycle_momentum=False)
    assert found(scheduler=cycle, updates=12).peak == pytest.approx(0.7, rel=0.02)
    # A run that ends before the schedule is at its highest.
    assert found(scheduler=cycle, updates=2).peak < 0.2


def test_a_rate_that_is_too_high_is_said_with_stage_and_remedy() -> None:
    shown = found(optimizer=partial(torch.optim.SGD, lr=50.0))
    said = list(warnings(shown))
    assert len(said) == 3
    assert said[0].startswith("the schedule's highest rate is above what stage 0 bears with a staleness of 2 (rate: 50")
    assert said[2].startswith(
        "the schedule's highest rate is above what all stages together bear with a staleness of 2"
    )
    assert not list(warnings(found(optimizer=partial(torch.optim.SGD, lr=1e-3))))
    assert table(shown).row_count == 3


class Attention(nn.Module):
    """Fused attention, which has no second derivative by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 12).double()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, 3) to (B, 4)."""
        q = self.inner(x).view(-1, 1, 3, 4)
        made: Tensor = nn.functional.scaled_dot_product_attention(q, q, q).mean((1, 2))
        return made


def test_fused_attention_is_measured_by_its_plain_kernel() -> None:
    torch.manual_seed(0)
    shown = found(model=nn.Sequential(Attention(), nn.Tanh(), nn.Linear(4, 2).double()), cuts=["1"])
    assert all(limit.rate is not None and limit.trusted for limit in shown.each)


class Square(torch.autograd.Function):
    """Squares, with a backward that keeps numbers and forgets what they depend on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.kept = x.detach().clone()
        return x.square()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * ctx.kept * gradient


class Squared(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        """Map any shape to itself."""
        made: Tensor = Square.apply(x)  # type: ignore[no-untyped-call]
        return made


def test_what_autograd_cannot_differentiate_is_not_trusted() -> None:
    shown = found(model=nn.Sequential(smooth()[0], Squared(), nn.Linear(4, 2).double()))
    assert [limit.trusted for limit in shown.each] == [False, True, False]
    assert any(line.startswith("stage 0: differences of gradients do not show") for line in lines(shown))


def test_kinks_are_no_reason_for_mistrust() -> None:
    torch.manual_seed(0)
    kinked = nn.Sequential(nn.Linear(3, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2)).double()
    assert all(limit.trusted for limit in found(batches=4, model=kinked).each)


def test_a_sum_and_its_count_are_the_mean() -> None:
    def total(outputs: Tensor, targets: Tensor) -> tuple[Tensor, int]:
        return nn.functional.cross_entropy(outputs, targets, reduction="sum"), len(targets)

    assert found(loss=total).each[0].curvature == pytest.approx(found().each[0].curvature)


def test_curvature_is_of_at_least_one_batch() -> None:
    with pytest.raises(ConfigError, match=r"at least one batch \(batches: 0\)"):
        found(batches=0)
