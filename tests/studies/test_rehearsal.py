import math
from typing import Any

import pytest

from stalegrid.config import Settings
from stalegrid.methods.published import METHODS
from stalegrid.observe.settings import OutputSettings
from stalegrid.observe.timeline import Timeline
from stalegrid.observe.trace import write_trace
from stalegrid.planner.planning import Candidate, Question, candidates
from stalegrid.plans.task import Task
from stalegrid.programs.actions import Action, Kind
from stalegrid.programs.grid import Unit
from stalegrid.programs.settings import GridSettings
from stalegrid.runs import execute
from stalegrid.studies import rehearsal
from stalegrid.studies.rehearsal import emulate, rehearse
from stalegrid.timing.columns import DeviceTable, read_costs
from stalegrid.timing.costs import Cost, CostTable
from stalegrid.timing.settings import DeviceSettings
from tests.cases import changed, make_plan, make_settings, make_task

MS = 1_000_000

costs: list[CostTable | DeviceTable] = []
"""What runs that were only asked for would have cost."""


def table(*names: str) -> CostTable:
    return CostTable(4, tuple(Cost(forward=10, backward=20, update=1, name=name) for name in names), 0.5)


def planned(method: str, settings: Settings, costs: CostTable | DeviceTable) -> Candidate:
    devices = (settings.grid.groups or 1) * (settings.grid.stages or 1)
    return candidates(Question(costs, devices, (method,)), settings)[0]


def on_simulator(task: Task, settings: Settings, *, quiet: bool) -> Any:
    assert quiet
    return execute(task, changed(settings, engine="simulator"), quiet=True)


def test_real_processes_that_sleep_for_what_the_costs_say_take_at_least_that() -> None:
    settings = make_settings(1, 2, cuts=None, deadline=300.0)
    candidate = planned("pipedream", settings, table("conv1", "norm2"))
    assert candidate.estimate.batch == 31.0
    found = emulate(candidate, table("conv1", "norm2"), 6)
    # Between two updates a stage sleeps for a forward, a backward and an update, less what it really computes.
    assert found >= 31.0 * 0.99
    assert math.isfinite(found)


def test_a_rehearsal_times_updates_of_the_task_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "execute", on_simulator)
    candidate = planned("pipedream", make_settings(1, 2), table("conv1", "norm2"))
    # The schedule of the small task ends after 8 updates.
    assert rehearse(make_task(), candidate, 12) > 0


def recorded_as(monkeypatch: pytest.MonkeyPatch, ends: dict[Unit, list[int]]) -> list[tuple[Task, Settings]]:
    """Let runs take nothing but write these ends of updates; return what is asked to run."""
    asked: list[tuple[Task, Settings]] = []

    def run(task: Task, settings: Settings, *, quiet: bool) -> None:
        assert quiet
        asked.append((task, settings))
        timeline = Timeline()
        for unit, times in ends.items():
            for n, end in enumerate(times):
                timeline.executed(unit, Action(Kind.FORWARD, n), end * MS - 9, end * MS - 5)
                timeline.executed(unit, Action(Kind.UPDATE, n), end * MS - 5, end * MS)
        folder = settings.output.folder
        assert folder is not None
        folder.mkdir()
        write_trace(folder / "trace.json", timeline)
        if settings.devices.costs is not None:
            costs.append(read_costs(settings.devices.costs))

    monkeypatch.setattr(rehearsal, "execute", run)
    costs.clear()
    return asked


def test_the_slowest_unit_counts_without_the_first_quarter(monkeypatch: pytest.MonkeyPatch) -> None:
    recorded_as(monkeypatch, {Unit(0, 0): [1, 50, 52, 54, 56], Unit(0, 1): [2, 10, 20, 30, 40]})
    candidate = planned("pipedream", make_settings(1, 2), table("conv1", "norm2"))
    assert rehearse(make_task(), candidate, 5) == pytest.approx(10.0)


def test_a_rehearsal_runs_the_candidate_on_processes_without_what_takes_time_besides(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = recorded_as(monkeypatch, {Unit(0, 0): [1, 2]})
    base = make_settings(1, 2, costs="costs.yaml", slow="0,1=2")
    candidate = planned("pipedream", base, table("conv1", "norm2"))
    task = make_task()
    rehearse(task, candidate, 13)
    ((ran, settings),) = asked
    assert (ran.test, ran.scheduler) == (None, None)
    assert ran.model is task.model
    assert (settings.method.name, settings.method.staleness) == ("pipedream", [1, 0])
    assert settings.grid == GridSettings(groups=1, stages=2, cuts=["norm2"])
    assert settings.devices == DeviceSettings(slow="0,1=2")
    assert (settings.engine.kind, settings.training.updates) == ("processes", 13)
    assert settings.output.folder is not None
    assert settings.output == OutputSettings(
        folder=settings.output.folder, trace=True, gap=False, log_every=13, evaluate_every=0, loggers=[]
    )
    assert not settings.output.folder.parent.exists()


def test_a_run_is_long_enough_to_fill_the_pipeline(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recorded_as(monkeypatch, {Unit(0, 0): [1, 2]})
    whole = table("conv1", "norm2")
    candidate = planned("pipedream", make_settings(1, 2, staleness=[6, 0]), whole)
    rehearse(make_task(), candidate, 9)
    emulate(candidate, whole, 9)
    assert [settings.training.updates for _, settings in asked] == [32, 32]


@pytest.mark.parametrize(("method", "groups", "stages"), [("pipedream", 1, 3), ("gpipe", 2, 2), ("pham-ahn", 3, 1)])
def test_emulation_runs_a_small_model_cut_like_the_candidate(
    monkeypatch: pytest.MonkeyPatch, method: str, groups: int, stages: int
) -> None:
    asked = recorded_as(monkeypatch, {Unit(0, 0): [1, 2]})
    whole = table("a", "b", "c", "d")
    candidate = planned(method, make_settings(groups, stages, cuts=None), whole)
    emulate(candidate, whole, 4)
    ((task, settings),) = asked
    (used,) = costs
    assert used.parts == whole.cut(stages, candidate.cuts)
    assert settings.devices.emulate
    assert (settings.method, settings.mixing) == (candidate.settings.method, candidate.settings.mixing)
    assert (settings.grid.groups, settings.grid.stages) == (groups, stages)
    plan = make_plan(task, changed(settings, costs=None, emulate=False, out=None), used)
    assert plan.schedule == candidate.schedule
    assert plan.devices.costs == used.parts
    assert all(len(stage.entries) == 2 for stage in plan.stages)  # a layer's weight and bias


def test_emulation_gives_each_unit_its_own_device(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = recorded_as(monkeypatch, {Unit(0, 0): [1, 2]})
    fast = table("a", "b", "c", "d")
    slow = CostTable(4, tuple(Cost(forward=30, backward=60, update=1, name=part.name) for part in fast.parts), 0.5)
    whole = DeviceTable((fast, slow), ("here", "here"))
    candidate = planned("pipedream", make_settings(1, 2, cuts=None), whole)
    assert candidate.cuts == ("d",)
    emulate(candidate, whole, 4)
    ((task, settings),) = asked
    (used,) = costs
    plan = make_plan(task, changed(settings, costs=None, emulate=False, out=None), used)
    assert plan.time_model is not None
    paces = [plan.time_model.pace(unit).of(Kind.FORWARD) for unit in plan.grid]
    assert paces == [3 * 10 * MS, 30 * MS]
    assert used.handling == 0


@pytest.mark.parametrize("method", [m.name for m in METHODS if m.max_stages is None and m.name != "sgd"])
def test_every_method_is_emulated_with_an_optimizer_that_it_accepts(
    monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    asked = recorded_as(monkeypatch, {Unit(0, 0): [1, 2]})
    # Of those that mix rarely some updates show nothing, which is refused.
    often = make_settings(1, 2, cuts=None, period=2, lag=0)
    emulate(planned(method, often, table("a", "b")), table("a", "b"), 4)
    ((task, settings),) = asked
    make_plan(task, changed(settings, costs=None, emulate=False, out=None), costs[0])
