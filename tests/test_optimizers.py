"""Optimizers that choose by names, and several that act as one: held against loops that any torch user would write."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.optim import SGD, Adam, AdamW, Optimizer, RMSprop
from torch.optim import lr_scheduler as schedules
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.data import Batches
from stalegrid.errors import ConfigError
from tests import cases
from tests.plans import test_served

torch.set_num_threads(1)

UPDATES, BATCH, SEED = 7, 4, 5
CUTS = {1: [], 2: ["3"], 3: ["3", "6"]}
STALE = {1: [0], 2: [1, 0], 3: [2, 1, 0]}

Named = list[tuple[str, nn.Parameter]]


def make_model() -> nn.Module:
    torch.manual_seed(1)
    first = [nn.Linear(6, 8), nn.LayerNorm(8), nn.ReLU()]
    return nn.Sequential(*first, nn.Linear(8, 8), nn.LayerNorm(8), nn.ReLU(), nn.Linear(8, 3))


def make_data() -> TensorDataset:
    draw = torch.Generator().manual_seed(0)
    return TensorDataset(torch.randn(40, 6, generator=draw), torch.randint(0, 3, (40,), generator=draw))


def of_name(named_parameters: Named) -> Optimizer:
    """Decay nothing but the weights of hidden layers, and train the head faster; a stage has all groups, if empty."""
    groups: dict[str, list[nn.Parameter]] = {"decay": [], "rest": [], "head": []}
    for name, p in named_parameters:
        kind = "head" if name.startswith("6.") else "decay" if name in ("0.weight", "3.weight") else "rest"
        groups[kind].append(p)
    usual = [{"params": groups["decay"], "weight_decay": 0.3}, {"params": groups["rest"]}]
    return AdamW([*usual, {"params": groups["head"], "lr": 0.05}], lr=0.01, weight_decay=0.0)


def hidden(name: str, parameter: nn.Parameter) -> bool:
    return parameter.ndim == 2 and not name.startswith("6.")


MUON: Any = partial(torch.optim.Muon, lr=0.03, weight_decay=0.1) if hasattr(torch.optim, "Muon") else None
muon = pytest.mark.skipif(MUON is None, reason="this torch has no Muon")


def several(named_parameters: Named) -> list[Optimizer]:
    """What a loop of one's own would have: two optimizers, one after the other."""
    chosen = [p for n, p in named_parameters if hidden(n, p)]
    return [MUON(chosen), AdamW([p for n, p in named_parameters if not hidden(n, p)], lr=0.01)]


joined = stalegrid.by_name({hidden: MUON}, rest=partial(AdamW, lr=0.01))


def warmed(optimizer: Optimizer) -> schedules.LRScheduler:
    parts = [schedules.LinearLR(optimizer, 0.25, total_iters=3), schedules.CosineAnnealingLR(optimizer, UPDATES)]
    return schedules.SequentialLR(optimizer, parts, milestones=[3])


def chained(optimizer: Optimizer) -> schedules.LRScheduler:
    parts = [schedules.ConstantLR(optimizer, 0.5, total_iters=2), schedules.ExponentialLR(optimizer, 0.9)]
    return schedules.ChainedScheduler(parts, optimizer)


def climbing(optimizer: Optimizer) -> schedules.LRScheduler:
    return schedules.LambdaLR(optimizer, lambda n: min(1.0, (n + 1) / 4))


def loop(
    make: Callable[[Named], list[Optimizer]],
    schedule: Callable[[Optimizer], schedules.LRScheduler] | None,
    staleness: list[int],
) -> dict[str, Tensor]:
    """Train the whole model, with the gradient of each stage at weights that are so many updates old (PipeDream)."""
    model = make_model()
    batches = Batches(make_data(), groups=1, batch_size=BATCH, seed=SEED)
    parameters = dict(model.named_parameters())
    steps = make(list(parameters.items()))
    rates = [schedule(step) for step in steps] if schedule else []
    stage = {name: sum(int(name[0]) >= int(cut) for cut in CUTS[len(staleness)]) for name in parameters}
    past: list[dict[str, Tensor]] = []
    for n in range(UPDATES):
        past.append({name: p.detach().clone() for name, p in parameters.items()})
        seen = {name: past[max(0, n - staleness[stage[name]])][name].clone().requires_grad_() for name in parameters}
        outputs = functional_call(model, seen, batches.inputs(0, n))
        nn.functional.cross_entropy(outputs, batches.targets(0, n)).backward()
        for name, p in parameters.items():
            p.grad = seen[name].grad
        for step in steps:
            step.step()
        for rate in rates:
            rate.step()
    return {name: p.detach() for name, p in parameters.items()}


def train(optimizer: Any, stages: int, staleness: list[int] | None = None, **settings: Any) -> dict[str, Tensor]:
    common = {"batch_size": BATCH, "updates": UPDATES, "seed": SEED, "quiet": True, "engine": "simulator"}
    grid = {"stages": stages, "cuts": CUTS[stages], "staleness": staleness} if stages else {}
    result = cases.train(
        make_model(), make_data(), loss=nn.CrossEntropyLoss(), optimizer=optimizer, **{**common, **grid, **settings}
    )
    return {name: p.detach() for name, p in result.model.named_parameters()}


def hold(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    differ = [name for name, value in expected.items() if not torch.equal(value, found[name])]
    assert not differ, differ


@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("schedule", [None, warmed, chained, climbing], ids=lambda s: s and s.__name__)
def test_groups_by_name_are_those_of_a_plain_loop(stages: int, late: bool, schedule: Any) -> None:
    staleness = STALE[stages] if late else [0] * stages
    expected = loop(lambda named: [of_name(named)], schedule, staleness)
    hold(train(of_name, stages, staleness, method="pipedream", scheduler=schedule), expected)


@muon
@pytest.mark.parametrize("stages", [1, 2, 3])
@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("schedule", [None, warmed, chained, climbing], ids=lambda s: s and s.__name__)
def test_two_optimizers_are_those_of_a_plain_loop(stages: int, late: bool, schedule: Any) -> None:
    staleness = STALE[stages] if late else [0] * stages
    expected = loop(several, schedule, staleness)
    hold(train(joined, stages, staleness, method="pipedream", scheduler=schedule), expected)


class FedBack(Optimizer):
    """What a loop of one's own would do around the step of another optimizer: u, and u - u_before once more."""

    def __init__(self, inner: Optimizer) -> None:
        super().__init__(inner.param_groups, inner.defaults)
        self.inner, self.last = inner, [None] * sum(len(group["params"]) for group in inner.param_groups)
        self.inner.param_groups = self.param_groups

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        parameters = [p for group in self.param_groups for p in group["params"]]
        before = [p.clone() for p in parameters]
        self.inner.step()
        for i, (p, old) in enumerate(zip(parameters, before, strict=True)):
            made, last = old - p, self.last[i]
            p -= 0.5 * (made - (made if last is None else last))
            self.last[i] = made


@muon
@pytest.mark.parametrize("stages", [1, 3])
def test_two_optimizers_with_error_feedback_are_those_of_a_plain_loop(stages: int) -> None:
    expected = loop(lambda named: [FedBack(own) for own in several(named)], warmed, STALE[stages])
    kind: dict[str, Any] = {"method": "pipedream", "corrections": ["error-feedback=0.5"]}
    hold(train(joined, stages, STALE[stages], scheduler=warmed, **kind), expected)


@muon
def test_a_rate_for_each_of_two_optimizers_holds_in_a_stage_that_has_one_of_them() -> None:
    def one(optimizer: Optimizer) -> schedules.LRScheduler:
        return schedules.OneCycleLR(optimizer, [0.03, 0.01], total_steps=UPDATES + 1, cycle_momentum=False)

    def plain(optimizer: Optimizer) -> schedules.LRScheduler:
        rate = 0.03 if isinstance(optimizer, type(MUON([nn.Parameter(torch.zeros(1, 1))]))) else 0.01
        return schedules.OneCycleLR(optimizer, rate, total_steps=UPDATES + 1, cycle_momentum=False)

    hold(train(joined, 3, STALE[3], method="pipedream", scheduler=one), loop(several, plain, STALE[3]))


@muon
@pytest.mark.timeout(280)
@pytest.mark.parametrize(
    ("optimizer", "make"), [(of_name, lambda named: [of_name(named)]), (joined, several)], ids=["names", "two"]
)
def test_processes_train_as_a_plain_loop_does(optimizer: Any, make: Any) -> None:
    found = train(optimizer, 3, STALE[3], method="pipedream", scheduler=warmed, engine="processes")
    hold(found, loop(make, warmed, STALE[3]))


@muon
@pytest.mark.parametrize("optimizer", [of_name, joined], ids=["names", "two"])
@pytest.mark.parametrize("servers", [1, 2, 4])
def test_one_learner_with_servers_trains_as_a_plain_loop_does(optimizer: Any, servers: int) -> None:
    make: Any = several if optimizer is joined else lambda named: [of_name(named)]
    found = train(optimizer, 0, method="softsync", learners=1, servers=servers, scheduler=climbing)
    hold(found, loop(make, climbing, [0]))


@muon
@pytest.mark.timeout(280)
def test_a_learner_and_servers_in_processes_train_as_a_plain_loop_does() -> None:
    found = train(joined, 0, method="softsync", learners=1, servers=2, scheduler=climbing, engine="processes")
    hold(found, loop(several, climbing, [0]))


def task_of(optimizer: Any, **changes: Any) -> Any:
    return cases.make_task(
        **{"model": make_model(), "data": make_data(), "optimizer": optimizer, "scheduler": None} | changes
    )


@muon
@pytest.mark.parametrize("optimizer", [of_name, joined], ids=["names", "two"])
@pytest.mark.parametrize("servers", [1, 2, 3])
def test_learners_with_servers_are_their_loop(optimizer: Any, servers: int) -> None:
    task = task_of(optimizer, scheduler=warmed)
    settings = test_served.served("softsync", learners=3, softsync=3, servers=servers)
    cases.compare(test_served.run(task, settings), test_served.loop(task, settings))


@pytest.mark.parametrize("servers", [1, 3])
def test_learners_can_have_the_momentum_of_several_optimizers(servers: int) -> None:
    sgd = partial(SGD, lr=0.1, momentum=0.5, weight_decay=0.0)
    several = task_of(stalegrid.by_name({"*.bias": sgd}, rest=partial(SGD, lr=0.02, momentum=0.5)), scheduler=climbing)
    settings = test_served.served("softsync", learners=3, softsync=3, servers=servers, momentum_at="learner")
    cases.compare(test_served.run(several, settings), test_served.loop(several, settings))
    assert test_served.differ(
        test_served.run(task_of(sgd, scheduler=climbing), settings), test_served.run(several, settings)
    )


@muon
@pytest.mark.parametrize("momentum", [False, True])
@pytest.mark.parametrize("mixing", ["combine-while-adapt", "adapt-then-combine"])
def test_groups_that_mix_are_their_loop(mixing: str, momentum: bool) -> None:
    task, settings = task_of(joined, scheduler=warmed), cases.make_settings(3, 2, cuts=["3"])
    settings = cases.changed(settings, mixing=mixing, momentum=momentum, topology="star")
    cases.hold_to_the_loop(task, settings)


TWICE = stalegrid.by_name({"*.weight": partial(SGD, lr=0.1, momentum=0.9)}, rest=partial(Adam, lr=0.01))


@pytest.mark.parametrize("method", ["spectrain", "pipeoptim", "pipemare", "dsp", "pipedream-2bw", "gpipe"])
def test_methods_that_read_an_optimizers_state_or_change_its_rates_are_their_loop(method: str) -> None:
    task, settings = task_of(TWICE, scheduler=climbing), cases.make_settings(1, 3, cuts=CUTS[3], method=method)
    cases.hold_to_the_loop(task, settings)


def test_gap_aware_reads_two_optimizers_like_one() -> None:
    sgd = partial(SGD, lr=0.1, momentum=0.9)
    settings = cases.make_settings(1, 3, cuts=CUTS[3], method="pipedream", corrections=["gap-aware"])
    one, two = (task_of(o) for o in (sgd, stalegrid.by_name({"*.bias": sgd, "*.weight": sgd})))
    cases.compare(cases.run_simulator(one, settings), cases.run_simulator(two, settings))


@pytest.mark.parametrize(
    "kind", [{"method": "pipedream", "corrections": ["gap-aware"]}, {"view": "predicted"}], ids=str
)
def test_one_of_two_optimizers_that_does_not_fit_is_refused_by_its_name(kind: dict[str, Any]) -> None:
    optimizer = stalegrid.by_name({"*.bias": partial(RMSprop, lr=0.1)}, rest=partial(SGD, lr=0.1, momentum=0.9))
    with pytest.raises(ConfigError, match=r"optimizer: .*RMSprop"):
        cases.make_plan(task_of(optimizer), cases.make_settings(1, 3, cuts=CUTS[3], **kind))


class Keyed(nn.Module):
    """Is called with names, as its batches are dictionaries; a loop then has it inside of another module."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = make_model()

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return nn.functional.cross_entropy(self.layers(x), y)


@pytest.mark.parametrize("stages", [1, 2])
def test_loops_of_batches_that_are_dictionaries_use_the_same_names(stages: int) -> None:
    def fast(named_parameters: Named) -> Optimizer:
        return SGD([{"params": [p], "lr": 0.1 if n.startswith("layers.0") else 0.01} for n, p in named_parameters])

    data: Any = [{"x": x, "y": y} for x, y in make_data()]
    task = task_of(fast, model=Keyed(), data=data, loss=lambda output, batch: output)
    settings = cases.make_settings(1, stages, cuts=["layers.3"][: stages - 1], method="gpipe")
    cases.hold_to_the_loop(task, settings)


class Tied(nn.Module):
    """Has its embedding under two names, of which a stage finds the other one first."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.embed = nn.Linear(4, 6, bias=False), nn.Embedding(6, 4)
        self.embed.weight = self.head.weight
        self.middle = nn.utils.parametrizations.weight_norm(nn.Linear(4, 4))
        self.last = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        made: Tensor = self.last(self.head(self.middle(self.embed(x))).mean(1))
        return made


def test_stages_use_the_names_of_the_users_model_for_what_has_several() -> None:
    seen: set[str] = set()

    def watched(named_parameters: Named) -> Optimizer:
        assert {name for name, _ in named_parameters} <= set(dict(Tied().named_parameters()))
        seen.update(name for name, _ in named_parameters)
        return SGD([{"params": [p], "lr": 0.1 if n == "head.weight" else 0.01} for n, p in named_parameters])

    data = TensorDataset(torch.randint(0, 6, (40, 5)), torch.randint(0, 3, (40,)))
    models = []
    for stages in (1, 2):
        torch.manual_seed(1)
        settings: dict[str, Any] = {
            "method": "gpipe",
            "stages": stages,
            "cuts": ["last"][: stages - 1],
            "engine": "simulator",
            "quiet": True,
        }
        models.append(
            cases.train(
                Tied(), data, loss=nn.CrossEntropyLoss(), optimizer=watched, batch_size=4, updates=3, **settings
            ).model
        )
    one, two = (dict(model.named_parameters()) for model in models)
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", [{"method": "pipedream", "stages": 2}, {"method": "asgd", "learners": 2}], ids=str)
@pytest.mark.parametrize(
    ("task", "text"),
    [
        ({"optimizer": torch.optim.LBFGS}, r"optimizer: LBFGS, its step needs: closure"),
        ({"scheduler": schedules.ReduceLROnPlateau}, r"scheduler: ReduceLROnPlateau, its step needs: metrics"),
        ({"scheduler": lambda o: [schedules.ExponentialLR(o, 0.9)]}, r"it returns: list.*ChainedScheduler"),
        ({"optimizer": lambda ps: [SGD(ps, lr=0.1)]}, r"it returns: list.*stalegrid\.by_name"),
    ],
    ids=["lbfgs", "plateau", "schedules", "optimizers"],
)
def test_what_cannot_step_is_refused_with_the_reason(task: dict[str, Any], text: str, method: dict[str, Any]) -> None:
    given = {"optimizer": partial(SGD, lr=0.1), **task}
    with pytest.raises(ConfigError, match=text):
        cases.train(make_model(), make_data(), loss=nn.CrossEntropyLoss(), **given, **method, batch_size=4, updates=3)
