"""What a stage is said to hold, what it says it holds, and what the allocator says it holds.

Three accounts of the same bytes: the plan's closed form, made before the run; the sums that stages keep of their
graphs, inputs and copies, which reports carry; and the allocations and releases of torch's CPU allocator, as the
profiler sees them while one unit runs its program alone on messages made by hand.  The last one shares nothing with the
first two.  It is read between actions, and what is no part of the others is taken off: gradients and the optimizer's
state.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils.data import TensorDataset

from stalegrid.agents.build import build_agents
from stalegrid.agents.pipeline import PipelineUnit
from stalegrid.config import Settings
from stalegrid.consensus.mixing import Vectors
from stalegrid.plans import make_batches
from stalegrid.plans.plan import Plan
from stalegrid.plans.task import Task
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import Layout, Message
from stalegrid.stages.views.named import VIEWS
from tests.cases import CPU, CUTS, build, changed, make_plan, make_settings, make_task, record_simulator
from tests.pairs import pairs
from tests.sites import noise

pytestmark = pytest.mark.thorough

STAGES = 4
UPDATES = 16
"""Enough for the stage with the largest staleness, 6, to have all the versions there are."""


def wide() -> nn.Module:
    """Return a model whose stages hold so much, tens of kilobytes a batch, that single numbers do not count."""
    return nn.Sequential(
        nn.Linear(64, 128),
        nn.Tanh(),
        nn.Linear(128, 128),
        nn.ReLU(),
        nn.Dropout(0.2),
        nn.Linear(128, 128),
        nn.BatchNorm1d(128),
        nn.ReLU(),
        nn.Linear(128, 128),
        nn.Tanh(),
        nn.Linear(128, 10),
    )


def task_of(name: str, **changes: Any) -> Task:
    if name == "small":
        return make_task(scheduler=None, **changes)
    data = TensorDataset(noise(192, 64), torch.arange(192) % 10)
    return make_task(**({"model": build(wide), "data": data, "scheduler": None} | changes))


def settings_of(name: str, view: str, **changes: Any) -> Settings:
    cuts = {"small": CUTS[STAGES], "wide": ["2", "5", "8"]}[name]
    # A double buffer takes as many micro-batches as the first stage is ahead.
    micro, updates = (6, 4) if view == "double-buffered" else (1, UPDATES)
    options = {"cuts": cuts, "batch_size": (4 if name == "small" else 32) * micro, "micro_batches": micro}
    return make_settings(1, STAGES, **(options | {"view": view, "updates": updates} | changes))


ASKED = ["stashed", "current", "recomputed"]


@pytest.mark.parametrize(
    ("model", "changes"),
    [
        ("small", {}),
        ("small", {"targets": "travel"}),
        ("small", {"gap": False}),
        ("small", {"corrections": ["dc-asgd"]}),
        ("wide", {}),
        ("wide", {"precision": "bf16"}),
    ],
)
@pytest.mark.parametrize("view", ASKED)
def test_every_stage_reports_what_the_plan_says(view: str, changes: dict[str, Any], model: str) -> None:
    sink = record_simulator(task_of(model), settings_of(model, view, **changes))
    for k in range(STAGES):
        reported = max(record["staleness"][f"(0,{k})"]["held"] for record in sink.records)
        assert reported == pytest.approx(sink.plan.held[k], rel=0.1)


@pytest.mark.parametrize("precision", [None, "bf16"])
@pytest.mark.parametrize("view", VIEWS)
def test_no_stage_reports_more_than_the_plan_says(view: str, precision: str | None) -> None:
    sink = record_simulator(task_of("small"), settings_of("small", view, precision=precision))
    for record in sink.records:
        for k in range(STAGES):
            assert 0 < record["staleness"][f"(0,{k})"]["held"] <= sink.plan.held[k]


@pytest.mark.parametrize("rule", ["push-sum", "exact-diffusion", "gradient-tracking"])
def test_what_a_mixing_keeps_is_reported_as_the_plan_says(rule: str) -> None:
    settings = make_settings(2, 2, mixing=rule, view="current", gap=False, updates=UPDATES)
    sink = record_simulator(task_of("small"), settings)
    plain = record_simulator(task_of("small"), changed(settings, mixing="adapt-then-combine"))
    for unit in ("(0,0)", "(1,1)"):
        held, without = (max(r["staleness"][unit]["held"] for r in one.records) for one in (sink, plain))
        read = sink.plan.stages[int(unit[3])]
        assert held - without == sink.plan.mixing.keeps * read.trained * 4
        assert sink.plan.held[int(unit[3])] - plain.plan.held[int(unit[3])] == held - without


def test_reports_say_what_was_held_since_the_one_before() -> None:
    sink = record_simulator(task_of("small"), settings_of("small", "stashed"))
    held = [record["staleness"]["(0,0)"]["held"] for record in sink.records]
    assert held[0] < held[6] == max(held), "six updates until there are all versions"
    assert held[-1] < max(held) / 2, "the last batch is alone"


@pytest.mark.parametrize(
    "mixing", [{"lag_rule": "delta", "period": 3, "lag": 2}, {"lag_rule": "ema", "sparse": 0.2, "lag": 4}], ids=str
)
def test_what_a_lag_rule_keeps_is_said_and_held(mixing: dict[str, Any]) -> None:
    settings = changed(settings_of("small", "current", gap=False), groups=2, mixing="combine-while-adapt")
    usual = make_plan(task_of("small"), changed(settings, lag=mixing["lag"])).held
    sink = record_simulator(task_of("small"), changed(settings, **mixing))
    for k in range(STAGES):
        more = sink.plan.mixing.remembered(sink.plan.turns, Vectors(sink.plan.stages[k], sink.plan.trainable[k], False))
        assert sink.plan.held[k] == usual[k] + more
        assert more >= 4 * sink.plan.stages[k].mixed
        reported = max(record["staleness"][f"(0,{k})"]["held"] for record in sink.records)
        assert usual[k] < reported <= sink.plan.held[k]


def test_casts_are_held_where_a_backward_reads_those_of_its_forward() -> None:
    """A graph of the view current has none: it makes them of the weights that it shows."""
    changes = {"precision": "bf16", "gap": False}
    plan, other = (make_plan(task_of("wide"), settings_of("wide", v, **changes)) for v in ("stashed", "current"))
    assert plan.schedule.in_flight(1) == 5
    assert plan.held[1] - other.held[1] == 4 * vector(plan, 1) + 5 * 2 * 128 * 128


def test_a_second_forward_saves_what_the_closed_form_says() -> None:
    """One graph and inputs in the place of graphs and copies."""
    stashed, recomputed = (make_plan(task_of("wide"), settings_of("wide", v)).held for v in ("stashed", "recomputed"))
    assert stashed[0] > 3 * recomputed[0]
    assert stashed[3] == recomputed[3]


def messages(layout: Layout, key: int) -> tuple[torch.Tensor, ...]:
    """Return tensors as a message of a layout has them: noise, and that each of them is there."""
    return tuple(
        noise(*spec.shape, key=key).to(spec.dtype).as_strided(spec.shape, spec.stride)
        if spec.dtype.is_floating_point
        else torch.ones(spec.shape, dtype=spec.dtype)
        for spec in layout
    )


@dataclass(frozen=True)
class Handmade:
    """Batches like one that is given, new at every call; the real ones keep the order of an epoch."""

    x: tuple[torch.Tensor, ...]
    y: torch.Tensor

    def indices(self, group: int, batch: int) -> torch.Tensor:
        return torch.arange(len(self.y))

    def inputs(self, group: int, batch: int) -> tuple[torch.Tensor, ...]:
        return tuple(x.clone() for x in self.x)

    def targets(self, group: int, batch: int) -> torch.Tensor:
        return self.y.clone()

    def checksum(self, group: int, batch: int) -> int:
        return 0


def besides(unit: PipelineUnit) -> int:
    """Return the bytes of gradients and optimizer state, which the account leaves out."""
    parameters = list(unit.stage.module.parameters())
    states = [t for p in parameters for t in unit._parts.optimizer.state.get(p, {}).values()]
    tensors = [*(p.grad for p in parameters if p.grad is not None), *(t for t in states if isinstance(t, torch.Tensor))]
    return sum({t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}.values())


@contextmanager
def without_collector() -> Iterator[None]:
    """Let nothing be freed that was not in use before: units of other tests wait for the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def weigh(task: Task, settings: Settings, plan: Plan, stage: int) -> tuple[list[int], list[int]]:
    """Run one unit alone under the profiler.

    Returns:
        After every action: the bytes that the unit accounts for, and the bytes that it has allocated and not released.
    """
    where = Unit(0, stage)
    unit = build_agents(task, plan, [where], CPU, None)[where].agent  # type: ignore
    assert isinstance(unit, PipelineUnit)
    parts = unit._parts
    samples = make_batches(task, plan.training, plan.grid.groups, plan.schedule.micro_batches)
    unit._samples = Handmade(samples.inputs(0, 0), samples.targets(0, 0))
    accounted, apart = [], []
    with without_collector(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        for action in plan.program.actions(where):
            inbox = [Message(tag, 0, messages(plan.layout(tag.edge), tag.index)) for tag in action.needs]
            unit.step(action, inbox)
            del inbox
            kept = sum(correction.nbytes for correction in parts.corrections)
            accounted.append(unit.stage.nbytes + parts.versions.nbytes + unit.stage.view.nbytes + kept)
            apart.append(besides(unit))
            with record_function("between actions"):
                pass
    events = profiled.profiler.kineto_results.events()  # type: ignore[union-attr]
    total = held_when_made(plan, stage)
    measured = []
    for event in sorted(events, key=lambda e: e.start_ns()):
        if event.name() == "[memory]":
            total += event.nbytes()
        elif event.name() == "between actions":
            measured.append(total)
    return accounted, [m - a for m, a in zip(measured, apart, strict=True)]


def held_when_made(plan: Plan, stage: int) -> int:
    """Return the bytes that a unit holds when it is made: the corrected view's movement."""
    moves = plan.view is VIEWS["corrected"] and plan.schedule.bound(stage)
    return vector(plan, stage) if moves else 0


def vector(plan: Plan, stage: int) -> int:
    """Return the bytes of the parameters of a stage."""
    return plan.stages[stage].trained * plan.stages[stage].dtype.itemsize


AFTERWARDS = {"corrected": 2, "double-buffered": 1}
"""Vectors that are left after the last update: the movement and the old weights; the version before."""


@pytest.mark.parametrize(("view", "stage", "precision"), pairs([*VIEWS], range(STAGES), (None, "bf16")))
def test_a_unit_holds_what_it_says_between_any_two_actions(view: str, stage: int, precision: str | None) -> None:
    task, settings = task_of("wide"), settings_of("wide", view, precision=precision)
    plan = make_plan(task, settings)
    accounted, measured = weigh(task, settings, plan, stage)
    assert len(accounted) == len(list(plan.program.actions(Unit(0, stage))))
    peak = max(measured)
    assert max(accounted) == pytest.approx(peak, rel=0.1)
    assert all(abs(a - m) < 0.1 * peak for a, m in zip(accounted, measured, strict=True))
    if view in ASKED:
        assert plan.held[stage] == pytest.approx(peak, rel=0.1)
    left = AFTERWARDS.get(view, 0) if plan.schedule.bound(stage) else 0
    assert measured[-1] == pytest.approx(left * vector(plan, stage), abs=0.01 * peak)


@pytest.mark.parametrize("stage", range(STAGES - 1))
@pytest.mark.parametrize("view", ASKED)
def test_so_does_a_unit_of_the_small_model(view: str, stage: int) -> None:
    """Without the last stage, which holds a few hundred bytes, about as many as its losses and counts."""
    task, settings = task_of("small"), settings_of("small", view)
    plan = make_plan(task, settings)
    accounted, measured = weigh(task, settings, plan, stage)
    assert max(accounted) == pytest.approx(max(measured), rel=0.1)
    assert plan.held[stage] == pytest.approx(max(measured), rel=0.1)


@pytest.mark.parametrize("view", ["current", "recomputed"])
def test_corrections_that_read_the_weights_of_the_forward_cost_what_the_plan_says(view: str) -> None:
    task, settings = task_of("wide"), settings_of("wide", view, corrections=["dc-asgd"])
    plan = make_plan(task, settings)
    accounted, measured = weigh(task, settings, plan, 0)
    assert max(accounted) == pytest.approx(max(measured), rel=0.1)
    assert plan.held[0] == pytest.approx(max(measured), rel=0.1)
    assert plan.held[0] > 6 * plan.stages[0].trained * 4


@pytest.mark.parametrize("stage", [0, STAGES - 1])
@pytest.mark.parametrize(
    ("correction", "view"),
    [("error-feedback", "stashed"), ("error-feedback", "current"), ("dc-asgd-adaptive", "stashed")],
)
def test_vectors_of_corrections_cost_what_the_plan_says(correction: str, view: str, stage: int) -> None:
    task, settings = task_of("wide"), settings_of("wide", view, corrections=[correction])
    plan, bare = make_plan(task, settings), make_plan(task, changed(settings, corrections=["none"]))
    assert plan.held[stage] >= bare.held[stage] + vector(plan, stage)
    accounted, measured = weigh(task, settings, plan, stage)
    assert max(accounted) == pytest.approx(max(measured), rel=0.1)
    assert plan.held[stage] == pytest.approx(max(measured), rel=0.1)


@pytest.mark.parametrize("view", VIEWS)
def test_a_stage_below_all_that_is_trained_holds_nothing_between_any_two_actions(view: str) -> None:
    model = build(wide)
    model[:5].requires_grad_(False)
    task, settings = task_of("wide", model=model), settings_of("wide", view)
    plan = make_plan(task, settings)
    assert plan.program.frozen == 2
    assert plan.held[:2] == (0, 0)
    for stage in range(2):
        accounted, measured = weigh(task, settings, plan, stage)
        assert not any(accounted)
        assert max(measured) < 100 * UPDATES  # not a single row of a batch, whose 32 are 128 numbers each


class Scaled(nn.Module):
    """A constant, as large as an activation, that every graph needs."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.arange(32 * 128).view(32, 128) % 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.scale


def test_a_constant_that_all_graphs_share_is_counted_at_most_once() -> None:
    model = build(lambda: nn.Sequential(nn.Linear(64, 128), Scaled(), *wide()[2:]))
    settings = settings_of("wide", "current")
    task = task_of("wide", model=model)
    plan = make_plan(task, settings)
    accounted, measured = weigh(task, settings, plan, 0)
    assert max(accounted) == pytest.approx(max(measured), abs=32 * 128 * 8 + 1000)
    assert plan.held[0] == pytest.approx(max(measured), abs=32 * 128 * 8 + 1000)


def test_the_measurement_sees_what_is_kept_besides() -> None:
    """A unit that kept one activation more would be found out."""
    task, settings = task_of("wide"), settings_of("wide", "recomputed")
    plan = make_plan(task, settings)
    kept: list[torch.Tensor] = []

    class Leaking(nn.Module):
        def forward(self, *outputs: torch.Tensor) -> torch.Tensor:
            kept.append(torch.empty(64 * 1024))
            return nn.functional.cross_entropy(*outputs)

    accounted, measured = weigh(task_of("wide", loss=Leaking()), settings, plan, STAGES - 1)
    assert len(kept) == UPDATES
    assert max(measured) > max(accounted) + (UPDATES - 1) * kept[0].nbytes
