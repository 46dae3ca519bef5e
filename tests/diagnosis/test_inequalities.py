"""What the theory says of a run, held on quadratics against what is known of them: every inequality, and how near."""

import re
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stalegrid.diagnosis import read_fixed
from stalegrid.plans import make_batches
from stalegrid.programs import Unit
from tests.cases import make_plan
from tests.diagnosis.quadratics import RATE, Quadratic, Run, diagnosed

ROUNDING = 1 + 1e-9

QUICK = [
    *((groups, "ring", m) for groups in (1, 2) for m in range(5)),
    (3, "ring", 2),
    (3, "complete", 4),
    (4, "ring", 1),
]
ALL = [
    *((s, "ring", m) for s in (1, 2, 3, 4) for m in range(5)),
    *((s, "complete", m) for s in (2, 3) for m in range(5)),
]
GRIDS = [*QUICK, *(pytest.param(grid, marks=pytest.mark.thorough) for grid in ALL if grid not in QUICK)]


@pytest.fixture(scope="module", params=GRIDS, ids=str)
def run(request: pytest.FixtureRequest) -> Run:
    groups, topology, m = request.param
    given = {} if groups == 1 else {"topology": topology}
    return diagnosed(Quadratic.drawn([3, 2]), groups, staleness=[m, m // 2], updates=7, **given)


def test_every_version_is_diagnosed(run: Run) -> None:
    assert list(run.records) == list(range(1, run.plan.updates + 1))


def test_the_gradient_of_the_mean_model_is_that_of_the_fixed_sample(run: Run) -> None:
    fixed = torch.cat([inputs[0] for inputs, _ in read_fixed(run.quadratic.task(), run.plan).batches.batches])
    total = weight = 0.0
    for version, record in run.records.items():
        gradient = run.quadratic.hessian @ (fixed.mean(0) + run.weights[version].mean(0))
        square = float(gradient.square().sum())
        assert record["gradient_square"] == pytest.approx(square, rel=1e-9)
        assert record["rate"] == RATE
        total, weight = total + RATE * square, weight + RATE
        assert record["gradient_square_average"] == pytest.approx(total / weight, rel=1e-9)


def test_the_noise_of_a_gradient_is_at_most_k_times_the_largest_of_a_stage(run: Run) -> None:
    for record in run.records.values():
        noise, stages = record["noise"], record["stages"]
        assert noise["predicted"] == pytest.approx(sum(stage["predicted"] for stage in stages))
        assert noise["predicted"] <= noise["bound"] * ROUNDING
        # No stage is more than all of them: not more than K times too large.
        assert noise["bound"] <= 2 * noise["predicted"] * ROUNDING


def test_variances_are_those_of_the_samples_and_batches_that_are_looked_at(run: Run) -> None:
    groups, fixed = run.plan.grid.groups, read_fixed(run.quadratic.task(), run.plan)
    assert fixed.singles is not None
    singles = torch.cat([inputs[0] for inputs, _ in fixed.singles.batches])
    if groups == 1:
        assert sorted(singles[:, 0].tolist()) == sorted(run.quadratic.points[:, 0].tolist())  # all there are, once
    means = torch.stack([inputs[0].mean(0) for inputs, _ in fixed.batches.batches])
    of_samples, of_batches = (
        torch.stack([(points[s::groups] @ run.quadratic.hessian).var(0, unbiased=True) for s in range(groups)]).mean(0)
        for points in (singles, means)
    )
    for record in run.records.values():
        for k, stage in enumerate(record["stages"]):
            rows = run.quadratic.rows(k)
            assert stage["variance"] == pytest.approx(float(of_samples[rows].sum()), rel=1e-9)
            assert stage["noise"] == pytest.approx(float(of_batches[rows].sum()), rel=1e-9)
            assert stage["predicted"] == pytest.approx(stage["variance"] / 4, rel=1e-12)


def test_the_smoothness_is_that_of_the_rows_of_the_hessian(run: Run) -> None:
    seen = 0
    for record in run.records.values():
        for k, stage in enumerate(record["stages"]):
            if stage["smoothness"] is not None:
                seen += 1
                rows = run.quadratic.hessian[run.quadratic.rows(k)]
                assert stage["smoothness"] == pytest.approx(float(torch.linalg.matrix_norm(rows, 2)), rel=1e-9)
    assert bool(seen) == any(run.plan.bounds)


def test_the_staleness_error_is_at_most_the_smoothness_times_the_gap(run: Run) -> None:
    hessian, m = run.quadratic.hessian, run.plan.bounds[0]
    for version, record in run.records.items():
        for k, stage in enumerate(record["stages"]):
            if version <= m:
                assert (stage["error"], stage["bound"]) == ((0.0, 0.0) if m == 0 else (None, None))
                continue
            moved = run.late(version) - run.weights[version]
            errors = (moved @ hessian[:, run.quadratic.rows(k)]).norm(dim=1)
            assert stage["gap"] == pytest.approx(float(moved.norm(dim=1).mean()), rel=1e-9)
            assert stage["error"] == pytest.approx(float(errors.mean()), rel=1e-9)
            assert stage["error"] <= stage["bound"] * ROUNDING
            assert m == 0 or stage["error"] > 0.05 * stage["bound"]


def test_the_consensus_distance_is_at_most_what_updates_add(run: Run) -> None:
    if run.plan.grid.groups == 1:
        assert all(record["consensus"] is None for record in run.records.values())
        return
    matrix = torch.tensor(run.plan.turns.matrix.weights(0))
    left = float(torch.linalg.eigvalsh(matrix).abs().sort().values[-2])  # a third in a ring of four, else 0
    most = 0.0
    for version, record in run.records.items():
        found, now, before = record["consensus"], run.weights[version], run.weights[version - 1]
        added = apart(now - matrix @ before)
        most = max(most, added)
        assert found["distance"] == pytest.approx(apart(now), rel=1e-9)
        assert found["added"] == pytest.approx(added, rel=1e-6)
        assert found["after_update"] == pytest.approx(left * apart(before) + added, rel=1e-6)
        assert found["bound"] == pytest.approx(most / (1 - left), rel=1e-6)
        assert found["distance"] <= found["after_update"] * ROUNDING
        assert found["distance"] <= found["bound"] * ROUNDING
        assert found["every_update"]


def apart(rows: Tensor) -> float:
    return float((rows - rows.mean(0)).square().sum(1).mean().sqrt())


def test_the_limit_of_a_stage_is_the_closed_form_over_its_curvature() -> None:
    run = diagnosed(Quadratic.drawn([3, 2]), limits=True, staleness=[2, 0], diagnose=4)
    assert list(run.records) == [4, 8, 12]
    for record in run.records.values():
        for k, (stage, factor) in enumerate(zip(record["stages"], (0.6180339887, 2.0), strict=True)):
            rows = run.quadratic.rows(k)
            curvature = float(torch.linalg.eigvalsh(run.quadratic.hessian[rows, rows])[-1])
            assert stage["curvature"] == pytest.approx(curvature)
            assert stage["rate_limit"] == pytest.approx(factor / curvature)


# How near the bounds are, where they can be reached.


@pytest.mark.parametrize("m", [1, 2, 3, 4])
def test_the_staleness_error_is_its_bound_where_all_directions_bend_alike(m: int) -> None:
    run = diagnosed(Quadratic.drawn([4], torch.eye(4, dtype=torch.float64)), staleness=[m])
    late = [record["stages"][0] for version, record in run.records.items() if version > m]
    assert late
    for stage in late:
        assert stage["error"] > 0
        assert stage["error"] == pytest.approx(stage["bound"], rel=1e-9)


def test_the_noise_is_its_bound_where_stages_are_alike() -> None:
    alike = Quadratic.drawn([2, 2], torch.eye(4, dtype=torch.float64))
    alike.points[:, 2:] = alike.points[:, :2]
    noise = diagnosed(alike, diagnose=12).records[12]["noise"]
    assert noise["predicted"] == pytest.approx(noise["bound"], rel=1e-9)


def test_a_stage_that_is_not_late_has_an_error_too_which_its_own_block_does_not_show() -> None:
    run = diagnosed(Quadratic.drawn([3, 2]), staleness=[3, 0])
    for version, record in run.records.items():
        if version > 3:
            own = run.late(version)[:, run.quadratic.rows(1)] - run.weights[version][:, run.quadratic.rows(1)]
            assert float(own.norm()) == 0.0
            assert record["stages"][1]["error"] > 0


def halfway(groups: int) -> list[list[float]]:
    """Return a mixing matrix that halves distances from the mean, in whichever direction: |lambda_2| = 1/2."""
    rows: list[list[float]] = (torch.eye(groups, dtype=torch.float64) / 2 + 0.5 / groups).tolist()
    return rows


def unlike(groups: int) -> Quadratic:
    """Return a quadratic of which groups have unlike samples, which pull them apart at nearly the same rate forever."""
    labels = torch.arange(groups).repeat_interleave(16)
    place = torch.zeros(groups, dtype=torch.float64)
    place[0], place[groups // 2] = 1.0, -1.0
    points = place[labels].view(-1, 1) * torch.ones(1, 4, dtype=torch.float64)
    return Quadratic(torch.eye(4, dtype=torch.float64), (2, 2), points, labels)


@pytest.mark.parametrize(
    ("groups", "mixing", "period", "near"),
    [
        (2, "combine-while-adapt", 1, 0.99),
        (3, "combine-while-adapt", 1, 0.99),
        (2, "combine-while-adapt", 3, 0.9),
        (2, "adapt-then-combine", 1, 0.99),
        # Only the rounds that do not mix add a whole step: it comes to (H - 1 + |lambda_2|) / H of the bound.
        (2, "adapt-then-combine", 3, 0.75),
    ],
)
def test_the_consensus_distance_comes_near_its_bound_where_steps_go_on_apart(
    groups: int, mixing: str, period: int, near: float
) -> None:
    quadratic = unlike(groups)
    given = {"topology": halfway(groups), "mixing": mixing, "period": period, "split": "shards=1"}
    task = quadratic.task(optimizer=lambda p: torch.optim.SGD(p, lr=1e-4))
    run = diagnosed(quadratic, groups, task=task, staleness=[2, 0], **given)
    assert run.plan.spectral_gap == pytest.approx(0.5)
    shares = []
    for record in run.records.values():
        found = record["consensus"]
        assert found["distance"] <= found["after_update"] * ROUNDING
        assert found["distance"] <= found["bound"] * ROUNDING
        shares.append(found["distance"] / found["bound"])
    assert max(shares) > near


def test_bounds_hold_with_groups_of_unlike_batches_and_any_optimizer() -> None:
    quadratic = Quadratic.drawn([3, 2])
    for optimizer in (
        partial(torch.optim.SGD, lr=RATE, momentum=0.9, weight_decay=0.1),
        partial(torch.optim.Adam, lr=RATE),
    ):
        task = quadratic.task(optimizer=optimizer)
        run = diagnosed(quadratic, 3, task=task, batch_size=[1, 2, 5], staleness=[2, 0], topology="star", updates=7)
        assert 1 - (run.plan.spectral_gap or 1.0) > 0.1
        for version, record in run.records.items():
            found = record["consensus"]
            assert 0 < found["distance"] <= found["after_update"] * ROUNDING
            assert found["distance"] <= found["bound"] * ROUNDING
            assert version <= 2 or all(0 < s["error"] <= s["bound"] * ROUNDING for s in record["stages"])


def test_a_bound_that_is_made_of_some_updates_says_so() -> None:
    found = diagnosed(Quadratic.drawn([3, 2]), 2, diagnose=3).records[12]["consensus"]
    assert not found["every_update"]
    assert found["distance"] <= found["after_update"] * ROUNDING


NOT_DERIVED: dict[str, tuple[int, dict[str, Any], str]] = {
    "lag": (2, {"lag": 1}, r"not derived where what groups mix is late \(mixing.lag: 1\)"),
    "turns": (4, {"topology": "one-peer-exponential"}, "another one in each turn"),
    "none": (2, {"mixing": "none"}, "groups do not mix"),
    "all-reduce": (2, {"mixing": "all-reduce"}, "groups stay equal, by all-reduce"),
    "another mixing": (2, {"mixing": "exact-diffusion"}, "not known with this mixing"),
}


@pytest.mark.parametrize("name", NOT_DERIVED)
def test_where_no_bound_is_derived_there_is_none(name: str) -> None:
    groups, changes, why = NOT_DERIVED[name]
    if name == "another mixing":
        changes = changes | {"staleness": [0, 0]}
    found = diagnosed(Quadratic.drawn([3, 2]), groups, batch_size=2, diagnose=12, **changes).records[12]["consensus"]
    assert (found["after_update"], found["bound"]) == (None, None)
    assert re.search(why, found["why"])


@pytest.mark.parametrize(("view", "used"), [("stashed", True), ("current", False), ("recomputed", False)])
def test_updates_use_the_gradients_of_the_late_weights_where_it_is_said(view: str, used: bool) -> None:
    quadratic = Quadratic.drawn([3, 2])
    run = diagnosed(quadratic, staleness=[3, 1], view=view, updates=7)
    batches = make_batches(quadratic.task(), run.plan.training, 1, 1)
    for version in range(4, run.plan.updates):
        points = batches.inputs(0, version)[0].mean(0)
        step = run.weights[version + 1][0] - run.weights[version][0]
        expected = -RATE * (quadratic.hessian @ (points + run.late(version)[0]))
        if used:
            assert step == pytest.approx(expected, rel=1e-9)
        assert run.records[version]["used"] == used


def test_units_show_themselves_at_no_other_version() -> None:
    plan = make_plan(Quadratic.drawn([3, 2]).task(), Quadratic.drawn([3, 2]).settings(2, staleness=[4, 1], diagnose=6))
    looks = plan.program.watch.looks if plan.program.watch is not None else None
    assert looks is not None
    shown = {k: [v for v in range(1, 13) if looks.shown(k, v)] for k in range(2)}
    assert shown == {0: [2, 5, 6, 8, 11, 12], 1: [5, 6, 11, 12]}
    sent = [tag.index for a in plan.program.actions(Unit(0, 0)) for tag in a.sends if tag.edge.name == "look"]
    assert sent == shown[0]
