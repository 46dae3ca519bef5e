"""Runs on quadratics come to rest below the rate that is printed before they start, and do not above it.

No clock is in it: the simulator trains, and how far each parameter is from the minimum decides.
"""

import math
from functools import partial

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from stalegrid.agents import Beginning, build_agents
from stalegrid.consensus.matrices import mixing_matrix
from stalegrid.engines import simulate
from stalegrid.limits import Limits, measure_limits
from stalegrid.programs import Unit
from stalegrid.stability import Late, Momentum, Recursion, Rounds, rate_of_groups
from stalegrid.stability.groups import growth
from tests.cases import CPU, Recorder, make_plan, make_settings, make_task, record_simulator
from tests.pairs import pairs

RATE = 0.01
SHARES = (0.98, 1.02)
"""The rate of the run, by the largest stable one of a parameter."""


CHANGE, FELT = 2.0, 1.4
"""By what the distance from the minimum is to change in a third of a run, and by what it is to be seen to."""


class Slot(nn.Module):
    """Adds what it trains to columns of its own, scaled so that the loss bends by given numbers along each."""

    def __init__(self, first: int, curvatures: list[float]) -> None:
        super().__init__()
        self.first = first
        self.w = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(curvatures, dtype=torch.float64).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        around = x.shape[1] - self.first - len(self.w)
        return x + nn.functional.pad(self.scale * self.w, (self.first, around))


def squares(outputs: Tensor, _: Tensor) -> Tensor:
    return outputs.square().sum(1).mean() / 2


class Apart(Beginning):
    """Groups begin at unlike weights, so that there are distances for mixing to make larger or smaller."""

    def fill(self, unit: Unit, module: nn.Module) -> None:
        """Move every parameter."""
        with torch.no_grad():
            for p in module.parameters():
                p += (unit.group + 1) ** 2 / 10


def recursion(delay: int, view: str, steps: Momentum) -> Recursion:
    """Return that of a curvature of 1: written once more, from the definition of each view."""
    ahead = {"predicted": delay}.get(view, 0)
    return Recursion((Late(delay, 1.0, ahead),), 0.0, steps)


def trained(
    curvatures: list[list[float]],
    staleness: list[int],
    view: str,
    steps: Momentum,
    updates: int,
    groups: int = 1,
    **changes: object,
) -> tuple[Limits, list[dict[tuple[int, str], Tensor]]]:
    """Train stages of slots, and return what is printed before and the parameters of each group by and by."""
    slots = [Slot(sum(map(len, curvatures[:k])), own) for k, own in enumerate(curvatures)]
    data = TensorDataset(torch.zeros(20, sum(map(len, curvatures)), dtype=torch.float64), torch.zeros(20))
    options = {"momentum": steps.momentum, "dampening": steps.dampening, "nesterov": steps.nesterov}
    task = make_task(
        model=nn.Sequential(*slots),
        data=data,
        loss=squares,
        optimizer=partial(torch.optim.SGD, lr=RATE, **options),
        scheduler=None,
    )
    given: dict[str, object] = {
        "method": "pipedream",
        "cuts": [str(k) for k in range(1, len(slots))],
        "staleness": staleness,
        "view": view,
        "batch_size": 1,
        "updates": updates,
        "log_every": updates,
        "evaluate_every": 0.5,
        "gap": False,
    }
    given |= changes
    settings = make_settings(groups, len(slots), **given)
    plan = make_plan(task, settings)
    sink = Recorder(plan)
    simulate(plan.program, build_agents(task, plan, plan.program.agents, CPU, sink, begins=Apart()))
    return measure_limits(task, plan, CPU), sink.values


def ratio(values: list[dict[tuple[int, str], Tensor]], name: str, group: int, place: int) -> float:
    """Return by what the distance from the minimum has grown from the first third of a run to the last."""
    seen = [abs(float(value[group, name][place])) for value in values]
    third = len(seen) // 3
    return max(seen[-third:]) / max(seen[third : 2 * third])


def hold(staleness: list[int], view: str, steps: Momentum) -> None:
    """Train stages of given staleness, and a last one that is not late and bears the rate of the others."""
    printed = [recursion(m, view, steps).largest_rate() for m in staleness]
    curvatures = [[share * limit / RATE for share in SHARES] for limit in printed]
    # A third of the run changes the distance of the slowest by so much.
    moduli = [
        recursion(m, view, steps).modulus(share * limit)
        for m, limit in zip(staleness, printed, strict=True)
        for share in SHARES
    ]
    third = math.ceil(math.log(CHANGE) / min(abs(math.log(modulus)) for modulus in moduli))
    easy = [0.1 * recursion(0, "stashed", steps).largest_rate() / RATE]
    found, values = trained([*curvatures, easy], [*staleness, 0], view, steps, 3 * third)
    *stages, last, _ = found.each
    for k, limit in enumerate(stages):
        assert (limit.stage, limit.staleness) == (k, staleness[k])
        assert limit.rate == pytest.approx(RATE / SHARES[1], rel=1e-6)
        below, above = (ratio(values, f"{k}.w", 0, place) for place in range(2))
        assert below < 1 / FELT < FELT < above, f"stage {k}, staleness {limit.staleness}: {below}, {above}"
    assert found.peak == RATE
    assert [limit.stage for limit in found.exceeded if limit.stage is not None] == list(range(len(staleness)))
    assert last.rate == pytest.approx(10 * RATE, rel=1e-6)


VIEWS = ["stashed", "recomputed", "current"]


@pytest.mark.parametrize("view", VIEWS)
def test_two_percent_decide_without_momentum(view: str) -> None:
    hold([2], view, Momentum())


@pytest.mark.parametrize("view", VIEWS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_two_percent_decide_where_nothing_is_late(view: str, momentum: float) -> None:
    hold([0], view, Momentum(momentum=momentum))


@pytest.mark.thorough
@pytest.mark.parametrize(("view", "momentum"), [("stashed", 0.9), ("recomputed", 0.0), ("current", 0.9)])
def test_two_percent_decide_at_every_staleness(view: str, momentum: float) -> None:
    hold([8, 5, 3, 1], view, Momentum(momentum=momentum))


@pytest.mark.thorough
def test_two_percent_decide_with_predicted_weights() -> None:
    hold([5, 3, 1], "predicted", Momentum(momentum=0.9))


@pytest.mark.thorough
def test_two_percent_decide_with_nesterov_s_momentum() -> None:
    hold([4, 1], "stashed", Momentum(momentum=0.9, nesterov=True))


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_two_percent_decide_where_micro_batches_are_added_up_too(reduction: str) -> None:
    own, micro = recursion(1, "stashed", Momentum()), 4  # as late as four of these are
    limit = own.largest_rate() / (micro if reduction == "sum" else 1)
    third = math.ceil(
        math.log(CHANGE) / min(abs(math.log(own.modulus(share * own.largest_rate()))) for share in SHARES)
    )
    given = {"method": "adl", "micro_batches": micro, "reduction": reduction, "batch_size": micro}
    curvatures = [[share * limit / RATE for share in SHARES], [0.01]]
    found, values = trained(curvatures, [micro, 0], "stashed", Momentum(), 3 * third, **given)
    first, _, together = found.each
    assert first.rate == pytest.approx(RATE / SHARES[1], rel=1e-6)
    assert together.rate == pytest.approx(RATE / SHARES[1], rel=1e-6)
    below, above = (ratio(values, "0.w", 0, place) for place in range(2))
    assert below < 1 / FELT < FELT < above, f"{below}, {above}"


@pytest.mark.parametrize(
    ("mixing", "lag", "staleness"),
    [
        ("combine-while-adapt", 0, 0),
        *(
            pytest.param(mixing, lag, staleness, marks=pytest.mark.thorough)
            for mixing, lag, staleness in pairs(("combine-while-adapt", "adapt-then-combine"), (0, 1, 3), (0, 1))
            if (mixing, lag, staleness) != ("combine-while-adapt", 0, 0)
        ),
    ],
)
def test_two_percent_decide_for_groups_that_mix(mixing: str, lag: int, staleness: int) -> None:
    steps, groups = Momentum(), 4
    rounds = Rounds(mixing_matrix("ring", groups).matrices, mixing == "adapt-then-combine", 1, lag)
    own = recursion(staleness, "stashed", steps)
    limit = rate_of_groups(own, rounds)
    moduli = [growth(own, rounds, share * limit) for share in SHARES]
    third = math.ceil(math.log(CHANGE) / min(abs(math.log(modulus)) for modulus in moduli))
    curvatures = [[share * limit / RATE for share in SHARES], [0.01]]
    given = {"mixing": mixing, "topology": "ring", "lag": lag}
    found, values = trained(curvatures, [staleness, 0], "stashed", steps, max(30, 3 * third), groups, **given)
    assert found.each[0].rate == pytest.approx(RATE / SHARES[1], rel=1e-4)
    below, above = (max(ratio(values, "0.w", s, place) for s in range(groups)) for place in range(2))
    assert below < 1 / FELT < FELT < above, f"{below}, {above}"


class Bent(nn.Module):
    """An output that is itself bent, and least where the loss has a slope: all curvature is that of the stage."""

    def __init__(self, curvatures: list[float]) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.ones(len(curvatures), dtype=torch.float64))
        self.register_buffer("scale", torch.tensor(curvatures, dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, n) to (B, n)."""
        return x + self.scale * self.w.square() / 2


def test_a_second_forward_makes_what_bends_within_a_stage_anew() -> None:
    for view, late in (("stashed", 3), ("recomputed", 0)):
        limit = recursion(late, "stashed", Momentum()).largest_rate()
        curvatures = [share * limit / RATE for share in SHARES]
        task = make_task(
            model=nn.Sequential(Bent(curvatures), Slot(0, [1.0, 1.0])),
            data=TensorDataset(torch.zeros(20, 2, dtype=torch.float64), torch.zeros(20)),
            loss=lambda outputs, _: outputs.sum(1).mean(),
            optimizer=partial(torch.optim.SGD, lr=RATE),
            scheduler=None,
        )
        given = {"view": view, "staleness": [3, 0], "method": "dsp", "cuts": ["1"], "batch_size": 1, "updates": 600}
        settings = make_settings(1, 2, **given, log_every=600, evaluate_every=0.5, gap=False)
        plan = make_plan(task, settings)
        found = measure_limits(task, plan, CPU).each
        assert found[0].rate == pytest.approx(RATE / SHARES[1], rel=1e-6)
        assert found[0].fresh == pytest.approx(1.0 if view == "recomputed" else 0.0)
        assert (found[1].rate, found[1].curvature) == (None, 0.0)
        values = record_simulator(task, settings, plan).values
        below, above = (ratio(values, "0.w", 0, place) for place in range(2))
        assert below < 1 / FELT < FELT < above, f"{view}: {below}, {above}"
