"""Models that are frozen in part, cut anywhere, held bit for bit against plain loops."""

import copy
from collections.abc import Collection
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.data import TensorDataset

from stalegrid.data import Batches
from stalegrid.errors import ConfigError
from stalegrid.plans.task import Task
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import Unit
from stalegrid.programs.serving import DOOR
from stalegrid.stages import by_name
from stalegrid.studies.loops import OWN
from stalegrid.studies.verifying import run_engine, verify
from tests.cases import (
    Net,
    build,
    changed,
    hold_to_the_loop,
    make_plan,
    make_settings,
    make_task,
    plan_of,
    run_simulator,
)
from tests.engines.distributed.matrix import task_of
from tests.sites import noise

pytestmark = pytest.mark.thorough

SIZE, UPDATES = 4, 8
PLACES = {2: ["5"], 3: ["3", "7"], 4: ["3", "5", "7"]}
"""Where :func:`chain` is cut, by K; its layers are in modules 0, 3, 5 and 7."""

FROZEN = {
    "the first": ("0", "1"),
    "the first two": ("0", "1", "3"),
    "all but the last": ("0", "1", "3", "5"),
    "one in the middle": ("5",),
    "the last": ("7",),
    "the first and one above": ("0", "1", "5"),
}


def chain() -> nn.Sequential:
    """Four layers, and running statistics."""
    return nn.Sequential(
        nn.Linear(6, 8),
        nn.BatchNorm1d(8),
        nn.ReLU(),
        nn.Linear(8, 8),
        nn.Tanh(),
        nn.Linear(8, 8),
        nn.ReLU(),
        nn.Linear(8, 3),
    )


def freeze(model: nn.Module, names: Collection[str]) -> nn.Module:
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    return model


def task_with(names: Collection[str], **changes: Any) -> Task:
    data = TensorDataset(noise(48, 6), torch.arange(48) % 3)
    return make_task(**({"model": freeze(build(chain), names), "data": data} | changes))


def plain(task: Task, m: dict[str, int] | None = None) -> dict[str, Tensor]:
    """Train the whole model; each parameter is read as it was ``m`` updates ago, by name, where it is stale."""
    model, batches = copy.deepcopy(task.model).train(), Batches(task.data, groups=1, batch_size=SIZE, seed=3)
    own = dict(model.named_parameters())
    optimizer = task.optimizer([p for p in own.values() if p.requires_grad])
    assert task.scheduler is not None
    scheduler = task.scheduler(optimizer)
    past: list[dict[str, Tensor]] = []
    for n in range(UPDATES):
        past.append({name: p.detach().clone().requires_grad_(p.requires_grad) for name, p in own.items()})
        read = {name: past[max(0, n - (m or {}).get(name, 0))][name] for name in own}
        loss = task.loss(functional_call(model, read, batches.inputs(0, n)), batches.targets(0, n))
        wanted = [name for name, p in own.items() if p.requires_grad]
        for name, gradient in zip(wanted, torch.autograd.grad(loss, [read[name] for name in wanted]), strict=True):
            own[name].grad = gradient
        optimizer.step()
        scheduler.step()
    return dict(model.state_dict())


def hold(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    differ = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    assert found.keys() == expected.keys()
    assert not differ


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("names", FROZEN.values(), ids=FROZEN)
def test_without_staleness_it_is_the_plain_loop(names: tuple[str, ...], stages: int) -> None:
    task = task_with(names)
    for changes in ({"method": "1f1b", "micro_batches": 1}, {"method": "pipedream", "staleness": [0] * stages}):
        settings = make_settings(1, stages, cuts=PLACES[stages], **changes)  # type: ignore[arg-type]
        hold(run_simulator(task, settings).mean, plain(task))


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("names", FROZEN.values(), ids=FROZEN)
def test_stashed_weights_are_those_of_the_forward_and_what_is_frozen_is_not_stale(
    names: tuple[str, ...], stages: int
) -> None:
    task = task_with(names)
    settings = make_settings(1, stages, cuts=PLACES[stages], method="pipedream")
    bounds = [0, *(int(name) for name in PLACES[stages]), 8]
    stage_of = {
        name: next(k for k in range(stages) if bounds[k] <= int(name.split(".")[0]) < bounds[k + 1])
        for name, _ in task.model.named_parameters()
    }
    ahead = {name: stages - 1 - k for name, k in stage_of.items()}
    hold(run_simulator(task, settings).mean, plain(task, ahead))


# Two of the four for each method.
@pytest.mark.parametrize(
    ("method", "names"),
    [
        (method, names)
        for i, method in enumerate(OWN)
        for names in [(("conv1", "norm1"), ("norm2",)), (("conv1", "norm1", "conv2"), ("fc1", "fc2"))][i % 2]
    ],
)
def test_every_view_computes_what_its_own_loop_does(method: str, names: tuple[str, ...]) -> None:
    settings = make_settings(1, 4, method=method)
    task = task_of(settings, freeze(build(Net), names))
    hold_to_the_loop(task, settings)


@pytest.mark.parametrize("names", [("conv1", "norm1"), ("norm2",)])
@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "combine-while-adapt", "lag": 1},
        {"mixing": "adapt-then-combine", "momentum": True},
        {"mixing": "all-reduce", "method": "gpipe", "micro_batches": 2},
        {"mixing": "all-reduce", "method": "1f1b", "micro_batches": 2},
    ],
    ids=lambda changes: f"{changes.get('method', 'pham-ahn')} {changes['mixing']}",
)
def test_groups_mix_what_is_trained_and_running_statistics(changes: dict[str, Any], names: tuple[str, ...]) -> None:
    settings = make_settings(2, 4, **changes)
    task = make_task(model=freeze(build(Net), names))
    hold_to_the_loop(task, settings)


@pytest.mark.parametrize(
    ("names", "changes"),
    [
        (("conv1", "norm1", "conv2"), {"method": "pipedream"}),
        (("conv1", "norm1"), {"method": "features-replay"}),
        (("norm2",), {"method": "pipedream-2bw"}),
    ],
)
def test_processes_compute_what_the_simulator_does(names: tuple[str, ...], changes: dict[str, Any]) -> None:
    settings = make_settings(1, 4, processes=2, **changes)
    found = verify(task_of(settings, freeze(build(Net), names)), settings)
    assert [difference.name for difference in found] == ["processes", "plain loops"]
    assert all(difference.equal for difference in found), found


def test_so_do_processes_of_several_groups() -> None:
    settings = make_settings(2, 2, cuts=["conv2"], lag=1, momentum=True, processes=2)
    found = verify(make_task(model=freeze(build(Net), ["conv1", "norm1"])), settings)
    assert all(difference.equal for difference in found), found


def test_groups_whose_first_stage_has_nothing_at_all_to_mix() -> None:
    settings = make_settings(2, 2, cuts=["3"], momentum=True, processes=2)
    model = freeze(build(lambda: nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Identity(), nn.Linear(8, 3))), ["0"])
    found = verify(task_with((), model=model), settings)
    assert all(difference.equal for difference in found), found


def test_the_plan_says_what_travels_and_is_held() -> None:
    task, settings = task_with(FROZEN["the first two"]), make_settings(1, 4, cuts=PLACES[4], view="recomputed")
    plan = make_plan(task, settings)
    assert plan.program.frozen == 2
    below, above = (plan.layout(Edge("gradient", Unit(0, k), Unit(0, k - 1))) for k in (2, 3))
    assert below == ()
    assert above[0].shape == (SIZE, 8)
    assert plan.held[:2] == (0, 0)
    assert plan.bounds[:2] == [0, 0]
    assert all(plan.held[2:])
    kinds = [{action.kind for action in plan.program.actions(Unit(0, k))} for k in range(3)]
    assert [Kind.RECOMPUTE in each for each in kinds] == [False, False, True]


def test_a_frozen_stage_above_holds_its_graphs_and_is_not_stale() -> None:
    plan = make_plan(task_with(("5",)), make_settings(1, 4, cuts=PLACES[4]))
    assert plan.program.frozen == 0
    assert all(plan.held)
    assert plan.trainable[2] == plan.bounds[2] == 0
    assert plan.bounds[1] > 0


def test_balanced_cuts_may_lie_within_what_is_frozen() -> None:
    wide = nn.Sequential(*(nn.Linear(256, 256) for _ in range(6)), nn.Linear(256, 3))
    model = freeze(build(lambda: wide), [str(i) for i in range(6)])
    data = TensorDataset(noise(64, 256), torch.arange(64) % 3)
    plan = make_plan(make_task(model=model, data=data), make_settings(1, 3, cuts=None, batch_size=32))
    assert plan.program.frozen == 2


@pytest.mark.parametrize(("stages", "cuts"), [(1, None), (2, ["5"]), (2, None)])
@pytest.mark.parametrize("method", ["pipedream", "gpipe"])
def test_a_model_of_which_nothing_is_trained_is_refused(method: str, stages: int, cuts: list[str] | None) -> None:
    task = task_with(("0", "1", "3", "5", "7"))
    with pytest.raises(ConfigError, match="nothing of the model is trained"):
        plan_of(task, make_settings(1, stages, method=method, cuts=cuts, micro_batches=1))


def test_so_it_is_by_servers() -> None:
    with pytest.raises(ConfigError, match="nothing of the model is trained"):
        plan_of(task_with(("0", "1", "3", "5", "7")), make_settings(groups=None, stages=None, cuts=None, method="asgd"))


class Adapted(nn.Module):
    """A frozen layer with a trained adapter of low rank beside it."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.base = nn.Linear(inputs, outputs).requires_grad_(False)
        self.down = nn.Parameter(torch.randn(2, inputs) / 10)
        self.up = nn.Parameter(torch.zeros(outputs, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + x @ self.down.t() @ self.up.t()


class Evaluated(nn.Sequential):
    """A frozen part that stays in evaluation mode."""

    def train(self, mode: bool = True) -> "Evaluated":
        return super().train(False)


CASES = {
    "adapters of low rank": lambda: nn.Sequential(Adapted(6, 8), nn.ReLU(), Adapted(8, 8), nn.Tanh(), Adapted(8, 3)),
    "a linear probe": lambda: nn.Sequential(freeze(nn.Sequential(*chain()[:7]), ["0", "1", "3", "5"]), nn.Linear(8, 3)),
    "statistics that stay": lambda: nn.Sequential(Evaluated(*chain()[:3]).requires_grad_(False), *chain()[3:]),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("stages", [2, 3])
def test_models_as_people_freeze_them_train_as_in_a_plain_loop(name: str, stages: int) -> None:
    task = task_with((), model=build(CASES[name]))
    hold(run_simulator(task, make_settings(1, stages, cuts=None, method="1f1b", micro_batches=1)).mean, plain(task))
    settings = make_settings(1, stages, cuts=None)
    plan = make_plan(task, settings)
    settings = changed(plan.settled(settings), processes=stages)
    simulated = run_engine(task, changed(settings, engine="simulator"), plan)
    found = run_engine(task, changed(settings, engine="processes"), plan)
    assert simulated.losses == found.losses
    assert all(torch.equal(value, found.parameters[key]) for key, value in simulated.parameters.items())


@pytest.mark.parametrize(
    "optimizer",
    [
        partial(torch.optim.Adagrad, lr=0.1),
        partial(torch.optim.Adam, lr=0.01, fused=True),
        partial(torch.optim.NAdam, lr=0.01),
        partial(torch.optim.RMSprop, lr=0.01, momentum=0.5),
        by_name({"*.weight": partial(torch.optim.SGD, lr=0.1)}, rest=partial(torch.optim.AdamW, lr=0.01)),
        lambda ps: torch.optim.SGD([{"params": [p for p in ps if p.ndim > 1]}, {"params": ps[:0]}], lr=0.1),
    ],
)
def test_any_optimizer_makes_no_step_where_nothing_is_trained(optimizer: Any) -> None:
    task, settings = (
        task_with(("0", "1", "5"), optimizer=optimizer, scheduler=None),
        make_settings(1, 4, cuts=PLACES[4]),
    )
    hold_to_the_loop(task, settings)


def test_a_frozen_model_at_servers_sends_what_is_trained() -> None:
    settings = make_settings(groups=None, stages=None, cuts=None, method="hardsync", learners=2, engine="simulator")
    plan = plan_of(task_with(FROZEN["the first"]), settings)
    (pushed, *_) = plan.layout(Edge("push", Unit(0, 0), DOOR))
    assert pushed.numel < 2 * sum(p.numel() for p in chain().parameters())
