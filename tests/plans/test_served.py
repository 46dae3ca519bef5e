"""Learners and parameter servers on the simulator: held against methods without servers, plain loops and records."""

import copy
import dataclasses
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from itertools import islice, product
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import OneCycleLR
from torch.utils.data import TensorDataset

from stalegrid.agents.build import build_agents
from stalegrid.agents.server import Server
from stalegrid.config import Settings
from stalegrid.engines.simulator import simulate
from stalegrid.errors import ConfigError, NonFiniteLoss, StalenessExceeded, TrainingError
from stalegrid.methods.choose import find
from stalegrid.methods.published import SERVER_METHODS
from stalegrid.observe.records import Nowhere
from stalegrid.plans.material import make_batches
from stalegrid.plans.plan import Plan
from stalegrid.plans.served import ServedPlan
from stalegrid.plans.task import Task
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.deliveries import DELIVERIES
from stalegrid.programs.grid import learner, server
from stalegrid.programs.messages import Message, layout_of
from stalegrid.programs.serving import in_turn
from stalegrid.programs.softsync import Delivery
from stalegrid.runs import Result, execute
from stalegrid.stages.corrections.clip import Clip
from stalegrid.stages.corrections.named import Correction, Update
from stalegrid.studies import verifying
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.reference.softsync import softsync
from tests.cases import (
    CPU,
    OTHER_OPTIMIZERS,
    Net,
    Outcome,
    Recorder,
    build,
    changed,
    compare,
    flat,
    images,
    make_plan,
    make_settings,
    make_task,
    plan_of,
    run_simulator,
)
from tests.pairs import pairs
from tests.test_equality import AWKWARD, NoGradient

UPDATES = 6
STEADY = partial(OneCycleLR, max_lr=0.1, total_steps=UPDATES, cycle_momentum=False)
"""For learners that have the momentum: a schedule that leaves it alone."""
TENSORS = sum(1 for _ in build(Net).parameters())


def served(method: str, **changes: Any) -> Settings:
    """Return settings of learners who are not equally fast, so that their gradients come in a drawn order."""
    defaults: dict[str, Any] = {
        "batch_size": 4,
        "updates": UPDATES,
        "log_every": 1,
        "evaluate_every": 0.0,
        "seed": 3,
        "engine": "simulator",
        "jitter": 0.3,
    }
    return flat(Settings, method=method, **(defaults | changes))


def planned(task: Task, settings: Settings) -> ServedPlan:
    plan = plan_of(task, settings)
    assert isinstance(plan, ServedPlan)
    return plan


class Seen(Recorder):
    """A sink that keeps the vectors of all servers under the names of the model."""

    def units(self, vectors: Any) -> None:
        parts = zip(self.plan.owners, self.plan.stages, strict=True)
        self.values.append({(0, e.name): e.view(vectors[u]).clone() for (u,), part in parts for e in part.entries})


def record(task: Task, settings: Settings) -> Seen:
    """Run with all learners and servers in this process and keep every observation."""
    plan = planned(task, settings)
    sink = Seen(plan)  # type: ignore[arg-type]
    simulate(plan.program, build_agents(task, plan, plan.program.agents, CPU, sink))
    return sink


def run(task: Task, settings: Settings) -> Outcome:
    return record(task, settings).outcome()


def loop(task: Task, settings: Settings) -> Outcome:
    """Run the plain loop that says what the settings compute."""
    found = plain_loop(task, planned(task, settings), CPU)
    assert found is not None, "no plain loop computes this"
    return outcome(found())


def outcome(trained: tuple[list[list[nn.Module]], list[list[float]]]) -> Outcome:
    made = verifying.outcome_of(trained)
    return Outcome(made.parameters, made.losses, trained[0][0][0].state_dict())


def differ(one: Outcome, other: Outcome) -> bool:
    return not verifying.compare("", one, other).equal


def close(one: Outcome, other: Outcome) -> None:
    """Hold two outcomes equal up to rounding."""
    double = next(iter(one.parameters.values())).dtype == torch.float64
    bounds = {"rtol": 1e-12, "atol": 1e-14} if double else {"rtol": 1e-4, "atol": 1e-6}
    torch.testing.assert_close(one.mean, other.mean, **bounds)
    torch.testing.assert_close(one.losses, other.losses, **bounds)


# One learner, and learners in step


@pytest.mark.parametrize("changes", [{}, {"clip": 0.5}, {"corrections": ["gap-aware"]}, {"dtype": "float64"}], ids=str)
@pytest.mark.parametrize("method", [method.name for method in SERVER_METHODS])
def test_one_learner_is_sgd(method: str, changes: dict[str, Any]) -> None:
    expected = run_simulator(make_task(), make_settings(1, 1, method="sgd", updates=UPDATES, **changes))
    compare(run(make_task(), served(method, learners=1, **changes)), expected)
    assert not changes or differ(run(make_task(), served(method, learners=1)), expected), "it does something"


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("learners", [2, 3])
def test_learners_in_step_are_sgd_with_a_larger_batch_up_to_the_order_of_summation(learners: int, dtype: str) -> None:
    # Not bit for bit: one batch sums the gradients of all its samples in one pass over them, learners sum their own
    # and the server the learners'.  With batch normalisation or dropout they would not even be close: statistics and
    # masks are each learner's own.
    task = make_task(model=build(partial(Net, plain=True)))
    common: dict[str, Any] = {"updates": UPDATES, "dtype": dtype}
    found = run(task, served("hardsync", learners=learners, **common))
    close(found, run_simulator(task, make_settings(1, 1, method="sgd", batch_size=4 * learners, **common)))
    parallel = run_simulator(task, make_settings(learners, 1, method="data-parallel", **common))
    means = [[sum(losses) / learners] for losses in parallel.losses]
    close(found, Outcome(parallel.parameters, means, parallel.mean))


def test_two_learners_in_step_are_two_groups_bit_for_bit() -> None:
    task = make_task(model=build(partial(Net, plain=True)))
    found = run(task, served("hardsync", learners=2))
    parallel = run_simulator(task, make_settings(2, 1, method="data-parallel", updates=UPDATES))
    # The sum of two is the same in either order, and so is their mean.
    assert all(torch.equal(value, parallel.parameters[0, name]) for (_, name), value in found.parameters.items())
    assert found.losses == [[sum(losses) / 2] for losses in parallel.losses]


class Asked(TensorDataset):
    """Data that counts how often each sample is asked for."""

    def __init__(self) -> None:
        super().__init__(*images().tensors)
        self.seen: Counter[int] = Counter()

    def __getitem__(self, index: int) -> tuple[Tensor, ...]:
        self.seen[index] += 1
        return super().__getitem__(index)


def samples(task: Task, settings: Settings, plan: Plan | ServedPlan) -> Counter[int]:
    """Return which samples a run looks at, but for those of planning."""
    assert isinstance(task.data, Asked)
    agents = build_agents(task, plan, plan.program.agents, CPU, Nowhere())
    task.data.seen.clear()
    simulate(plan.program, agents)
    return task.data.seen.copy()


@pytest.mark.parametrize("learners", [1, 2, 3])
def test_learners_in_step_see_the_samples_of_the_larger_batch(learners: int) -> None:
    task = make_task(data=Asked())
    for updates in (1, 2, UPDATES):  # an epoch has 12, 6 or 4 updates
        settings = served("hardsync", learners=learners, updates=updates)
        found = samples(task, settings, planned(task, settings))
        assert found.total() == updates * learners * 4
        settings = make_settings(1, 1, method="sgd", batch_size=4 * learners, updates=updates)
        assert found == samples(task, settings, make_plan(task, settings))
        settings = make_settings(learners, 1, method="data-parallel", updates=updates)
        assert found == samples(task, settings, make_plan(task, settings))


# Plain loops

RULES = {"constant": "constant", "inverse": "inverse", "exponential": "exponential=0.5", "dc": "dc=0.5"}
SHAPES: list[tuple[str, int, int | None]] = [
    *(("softsync", number, n) for number in (1, 2, 3) for n in range(1, number + 1)),
    ("softsync", 4, 2),
    *(("asgd", number, None) for number in (1, 2, 3)),
]
PLACES = ("server", "learner")
ALL = [
    *((*shape, rule, where) for shape, rule, where in pairs(SHAPES, [*RULES], PLACES)),
    *(("hardsync", i, None, None, where) for i, where in product((1, 2, 3), PLACES)),
]
CASES = [pytest.param(*case, marks=[pytest.mark.thorough] * (number % 3 > 0)) for number, case in enumerate(ALL)]


def momentum_of(where: str) -> Task:
    return make_task() if where == "server" else make_task(scheduler=STEADY)


@pytest.mark.parametrize(("method", "learners", "n", "rule", "where"), CASES)
def test_the_simulator_computes_what_the_plain_loop_does_whatever_the_number_of_servers(
    method: str, learners: int, n: int | None, rule: str | None, where: str
) -> None:
    task = momentum_of(where)
    settings = served(method, learners=learners, softsync=n, momentum_at=where)
    if rule is not None:
        settings = changed(settings, rule=RULES[rule])
    expected = loop(task, settings)
    for servers in (1, 3):
        compare(run(task, changed(settings, servers=servers)), expected)


def test_rules_and_the_place_of_the_momentum_change_the_numbers() -> None:
    task = make_task(scheduler=STEADY)
    settings = served("softsync", learners=3, softsync=3)
    assert {tau for seen in record(task, settings).records for tau in taus(seen)} >= {0, 1, 2}
    found = [
        run(task, changed(settings, rule=rule, momentum_at=where))
        for rule, where in product([*RULES.values(), "gap", None], ("server", "learner"))
    ]
    same = {(i, j) for i, j in product(range(len(found)), repeat=2) if i < j and not differ(found[i], found[j])}
    assert same == {(2, 10), (3, 11)}, "softsync's own rule is the inverse, and no two others are the same"


def taus(seen: dict[str, Any]) -> list[int]:
    """Return the staleness of every gradient of a report."""
    by_learner = [seen["staleness"][unit]["histogram"] for unit in seen["staleness"]]
    return [tau for histogram in by_learner for tau, count in enumerate(histogram) for _ in range(count)]


@pytest.mark.thorough
@pytest.mark.parametrize("name", [*AWKWARD, "without-gradient"])
def test_awkward_models(name: str) -> None:
    changes, _ = AWKWARD.get(name, ({"model": build(NoGradient)}, []))
    task = make_task(**changes)
    for settings in (served("softsync", learners=2), served("asgd", learners=3), served("hardsync", learners=2)):
        expected = loop(task, settings)
        for servers in (1, 2):
            compare(run(task, changed(settings, servers=servers)), expected)


@pytest.mark.parametrize("optimizer", OTHER_OPTIMIZERS, ids=lambda o: o.func.__name__)
def test_any_optimizer_at_the_servers(optimizer: Callable[..., torch.optim.Optimizer]) -> None:
    halve = partial(torch.optim.lr_scheduler.StepLR, step_size=2, gamma=0.5)
    task = make_task(optimizer=optimizer, scheduler=halve)
    settings = served("softsync", learners=3, softsync=3, servers=2)
    compare(run(task, settings), loop(task, settings))


@pytest.mark.parametrize("changes", [{"dtype": "float64"}, {"jitter": 1.5}, {"slow": "1=7"}, {"seed": 4}], ids=str)
def test_other_numbers_and_orders(changes: dict[str, Any]) -> None:
    settings = served("softsync", learners=3, softsync=2, servers=2, updates=8, **changes)
    task = make_task()
    compare(run(task, settings), loop(task, settings))


@pytest.mark.parametrize("where", ["server", "learner"])
def test_error_feedback_is_of_the_servers_updates(where: str) -> None:
    task, rule = momentum_of(where), ["inverse-staleness"]
    settings = served("softsync", learners=3, softsync=2, momentum_at=where)
    settings = changed(settings, corrections=[*rule, "error-feedback=0.5"])
    found = run(task, changed(settings, servers=2))
    compare(found, loop(task, settings))
    assert differ(found, run(task, changed(settings, corrections=rule)))


def test_an_update_of_several_gradients_has_no_staleness_to_feed_back_by() -> None:
    settings = served("softsync", learners=2, corrections=["error-feedback-by-staleness"])
    with pytest.raises(ConfigError, match=r"an update of a server has no staleness of its own.*take error-feedback"):
        planned(make_task(), settings)


def has(method: str, *own: Any, **changes: Any) -> bool:
    """Return whether there is a loop that computes the same."""
    if own:
        changes["corrections"] = [*changes.get("corrections", find(method).corrections), *own]
    task, settings = make_task(), served(method, learners=2, **changes)
    return plain_loop(task, planned(task, settings), CPU) is not None


def test_there_is_a_loop_for_settled_learners_in_step() -> None:
    assert has("hardsync", rule="constant")
    assert has("hardsync", corrections=["none"])


def test_there_is_a_loop_where_it_says_what_is_computed_and_nowhere_else() -> None:
    assert has("hardsync")
    assert has("softsync")
    assert has("asgd", corrections=["dc-asgd"])
    for changes in (
        {"clip": 1.0},
        {"max_staleness": 1},
        {"rule": "gap"},
        {"corrections": ["dc-asgd-adaptive"]},
        {"corrections": ["inverse-staleness", "dc-asgd"]},
    ):
        assert not has("softsync", **changes)
    assert not has("softsync", Correction)
    assert not has("hardsync", rule="inverse")


def test_numbers_left_out_are_the_usual_ones_in_runs_and_loops() -> None:
    task = make_task()
    for left_out, told in (("exponential", "exponential=0.1"), ("dc", "dc=0.04")):
        settings = served("asgd", learners=3, rule=left_out)
        expected = run(task, changed(settings, rule=told))
        compare(run(task, settings), expected)
        compare(loop(task, settings), expected)


# What has no plain loop


@pytest.mark.thorough
@pytest.mark.parametrize(
    "changes",
    [
        {"rule": "gap"},
        {"corrections": ["dc-asgd-adaptive"]},
        {"corrections": ["inverse-staleness", "dc-asgd=0.5"]},
        {"corrections": ["gap-aware"], "momentum_at": "learner"},
        {"corrections": ["error-feedback=0.5"]},
        {"max_staleness": 1},
    ],
    ids=str,
)
@pytest.mark.parametrize(("method", "n"), [("softsync", 2), ("asgd", None)])
def test_the_number_of_servers_changes_no_bit(method: str, n: int | None, changes: dict[str, Any]) -> None:
    task = make_task(scheduler=STEADY)
    settings = served(method, learners=4, softsync=n, **changes)
    one = record(task, settings)
    for servers in (2, 5, TENSORS):
        many = record(task, changed(settings, servers=servers))
        compare(many.outcome(), one.outcome())
        unlike = {"held", "bytes_sent"}  # of one server, whose shard is smaller; and each is told whose turn it is
        assert [{k: v for k, v in r.items() if k not in unlike} for r in many.records] == [
            {k: v for k, v in r.items() if k not in unlike} for r in one.records
        ]
    constant = changed(settings, corrections=["none"], rule=None, max_staleness=None)
    assert differ(run(task, constant), one.outcome()), "it does something"


def test_clipping_is_of_each_shard() -> None:
    task, settings = make_task(), served("softsync", learners=3)
    plain = run(task, settings)
    for servers in (1, 2):
        compare(run(task, changed(settings, servers=servers, clip=1e9)), plain)
    one, two = (run(task, changed(settings, servers=servers, clip=0.05)) for servers in (1, 2))
    assert differ(one, plain)
    assert differ(one, two)
    trimmed = make_task(optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=None)
    begun = torch.cat([p.detach().flatten() for p in trimmed.model.parameters()])
    for servers in (1, 2, 4):
        moved = run(trimmed, served("asgd", learners=1, servers=servers, updates=1, clip=0.05))
        now = torch.cat([moved.mean[name].flatten() for name, _ in trimmed.model.named_parameters()])
        assert float((now - begun).norm()) == pytest.approx(0.05 * servers**0.5, rel=1e-4)


class Watching(Correction):
    """Checks that the weights that it is shown are those that the gradient was computed at."""

    needs_forwarded = True
    seen: ClassVar[list[tuple[int, int, int]]] = []
    """(server, version, staleness) of every gradient."""

    def __init__(self, site: Any) -> None:
        super().__init__(site)
        self.past: dict[int, Tensor] = {}
        self._keep(0)

    def _keep(self, version: int) -> None:
        weights = self.site.weights
        self.past[version] = weights.flat[: weights.trained].clone()

    def correct(self, update: Update) -> None:
        assert update.index == self.site.weights.version
        assert update.forwarded is not None
        expected = self.past[update.index - update.staleness]
        assert torch.equal(update.forwarded[: len(expected)], expected)
        Watching.seen.append((self.site.unit.stage, update.index, update.staleness))

    def stepped(self, update: Update) -> None:
        assert update.index == self.site.weights.version
        self._keep(update.index + 1)


@pytest.mark.filterwarnings("ignore:training adds to")
@pytest.mark.parametrize("changes", [{"softsync": 3}, {"softsync": 2}, {"softsync": 1}, {"max_staleness": 1}], ids=str)
def test_a_correction_is_shown_the_weights_of_every_gradients_forward(changes: dict[str, Any]) -> None:
    settings = served("softsync", learners=5, servers=2, jitter=1.0, corrections=["none"], **changes)
    task = make_task()
    plan = planned(task, changed(settings, corrections=[Watching]))
    sink = Seen(plan)  # type: ignore[arg-type]
    agents = build_agents(task, plan, plan.program.agents, CPU, sink)
    Watching.seen = []
    simulate(plan.program, agents)
    compare(sink.outcome(), run(make_task(), settings))
    seen = [[(version, tau) for s, version, tau in Watching.seen if s == shard] for shard in (0, 1)]
    assert seen[0] == seen[1]
    assert [sorted(tau for version, tau in seen[0] if version == n) for n in range(UPDATES)] == [
        sorted(taus(report)) for report in sink.records
    ]
    assert max(tau for _, tau in seen[0]) > 0


class Shifted(Correction):
    """Adds to gradients."""

    def correct(self, update: Update) -> None:
        for p in self.site.weights.trainable():
            p.grad += 1  # type: ignore[operator]


class Doubled(Correction):
    """Doubles gradients, putting others in their place, and halves the rate twice."""

    def correct(self, update: Update) -> None:
        for p in self.site.weights.trainable():
            p.grad = p.grad * 2  # type: ignore[operator]

    def rate(self, update: Update) -> float:
        return 0.25


class Both(Correction):
    """Adds and doubles, at a quarter of an eighth of the rate."""

    def correct(self, update: Update) -> None:
        for p in self.site.weights.trainable():
            p.grad = (p.grad + 1) * 2  # type: ignore[operator]

    def rate(self, update: Update) -> float:
        return 0.03125


class Slower(Correction):
    """Takes an eighth of the rate."""

    def rate(self, update: Update) -> float:
        return 0.125


@pytest.mark.parametrize("servers", [1, 2])
def test_corrections_act_in_their_order_and_their_rates_multiply(servers: int) -> None:
    settings = served("softsync", learners=3, servers=servers)

    def corrected(*corrections: Any, **changes: Any) -> Outcome:
        return run(make_task(), changed(settings, corrections=list(corrections), **changes))

    both = corrected(Both)
    compare(corrected(Shifted, Doubled, Slower), both)
    assert differ(corrected(Doubled, Shifted, Slower), both)
    # Names and values act in the order in which they are given, and clipping by the setting comes last.
    compare(corrected("clip=0.01", Shifted), corrected(partial(Clip, norm=0.01), Shifted))
    compare(corrected(Shifted, clip=0.01), corrected(Shifted, partial(Clip, norm=0.01)))
    assert differ(corrected("clip=0.01", Shifted), corrected(Shifted, "clip=0.01"))


def test_versions_are_held_only_where_somebody_reads_them_and_only_while_they_are_computed_on() -> None:
    settings = served("asgd", learners=3)
    assert {report["held"] for report in record(make_task(), settings).records} == {0}
    compensated = record(make_task(), changed(settings, rule="dc", updates=8, jitter=1.0))
    nbytes = sum(-(-p.nbytes // 64) * 64 for p in build(Net).parameters())
    versions, held = dict.fromkeys(range(3), 0), []
    for now, delivery in enumerate(compensated.plan.program.order[:8]):  # type: ignore[attr-defined]
        versions.pop(delivery.learner)
        held.append(len(set(versions.values())) * nbytes)
        versions[delivery.learner] = now + 1
    assert [report["held"] for report in compensated.records] == held
    assert len(set(held)) > 1


# Softsync and hardsync, momentum at learners


def test_softsync_whose_learners_wait_for_each_other_is_hardsync_up_to_the_order_of_summation() -> None:
    settings = served("softsync", learners=3, softsync=1, max_staleness=0)
    kept, task = record(make_task(), settings), make_task()
    program = kept.plan.program
    assert program.rules.gather == 3
    rounds = [program.order[i : i + 3] for i in range(0, 3 * UPDATES, 3)]  # type: ignore[attr-defined]
    assert all(sorted(those) == in_turn(program.rules, 1) for those in rounds)
    assert any(those != in_turn(program.rules, 1) for those in rounds), "they do not come in turn"
    hard = run(task, served("hardsync", learners=3))
    close(kept.outcome(), hard)
    assert [taus(report) for report in kept.records] == [[0, 0, 0]] * UPDATES
    assert [taus(report) for report in record(task, served("hardsync", learners=3)).records] == [[0, 0, 0]] * UPDATES
    # Learners that are equally fast do come in turn: then it is bit for bit.
    compare(run(task, changed(settings, jitter=0.0)), hard)


@pytest.mark.parametrize("method", [method.name for method in SERVER_METHODS])
def test_momentum_of_one_learner_is_that_of_the_servers(method: str) -> None:
    task = make_task(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), scheduler=STEADY)
    settings = served(method, learners=1, servers=2)
    of_servers = run(task, settings)
    compare(run(task, changed(settings, momentum_at="learner")), of_servers)
    assert differ(run(make_task(optimizer=partial(torch.optim.SGD, lr=0.1), scheduler=STEADY), settings), of_servers)
    decayed = make_task(scheduler=STEADY)
    assert differ(run(decayed, settings), run(decayed, changed(settings, momentum_at="learner")))


def test_learners_have_a_momentum_each() -> None:
    task = make_task(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9), scheduler=None)
    settings = served("hardsync", learners=2, momentum_at="learner", dtype="float64")
    # In step they are the servers' momentum up to rounding, since the mean of sums is the sum of means.
    close(run(task, settings), run(task, changed(settings, momentum_at="server")))
    stale = changed(settings, method="asgd", rule="inverse")
    assert differ(run(task, stale), run(task, changed(stale, momentum_at="server")))


def test_a_schedule_that_cycles_the_momentum_is_not_mixed_with_momentum_at_learners() -> None:
    # Either it is refused or the servers have none: never one momentum upon the other.
    task = make_task(optimizer=partial(torch.optim.SGD, lr=0.1, momentum=0.9))
    settings = served("hardsync", learners=1, momentum_at="learner")
    try:
        plan = planned(task, settings)
    except ConfigError:
        return
    assert plan.momentum == 0.9
    compare(run(task, settings), run(make_task(optimizer=task.optimizer, scheduler=STEADY), settings))


# Records


def deliveries(folder: Path) -> list[dict[str, int]]:
    return [json.loads(line) for line in (folder / DELIVERIES).read_text().splitlines()]


def metrics(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"]


def kept(folder: Path, settings: Settings, task: Task | None = None) -> Result:
    return execute(task or make_task(), changed(settings, out=folder), quiet=True)


@pytest.mark.parametrize(
    ("method", "changes"),
    [
        ("softsync", {"softsync": 1}),
        ("softsync", {"softsync": 2, "log_every": 4}),
        ("softsync", {"softsync": 4, "max_staleness": 2, "log_every": 3}),
        ("softsync", {"softsync": 2, "max_staleness": 0}),
        ("asgd", {"updates": 20, "log_every": 7}),
        ("asgd", {"updates": 20, "max_staleness": 1}),
        ("hardsync", {}),
    ],
    ids=str,
)
def test_the_staleness_that_is_reported_is_that_of_the_deliveries(
    method: str, changes: dict[str, Any], tmp_path: Path
) -> None:
    settings = served(method, learners=4, jitter=1.0, **changes)
    result = kept(tmp_path / "run", settings, make_task(scheduler=None))
    lines, reports = deliveries(tmp_path / "run"), metrics(tmp_path / "run")
    assert len(lines) == settings.training.updates * 4 // result.summary["softsync"]
    last = 0
    for report in reports:
        taken = [line for line in lines if last <= line["clock"] < report["update"]]
        last = report["update"]
        assert last % settings.output.log_every == 0 or last == settings.training.updates
        for unit, seen in report["staleness"].items():
            own = [line["clock"] - line["version"] for line in taken if str(learner(line["learner"])) == unit]
            assert seen["histogram"] == [own.count(tau) for tau in range(max(own) + 1)]
            assert (seen["batches"], seen["max"]) == (len(own), max(own))
            assert seen["mean"] == pytest.approx(sum(own) / len(own))
        assert report["staleness"].keys() == {str(learner(line["learner"])) for line in taken}
    assert last == settings.training.updates
    bound = 0 if method == "hardsync" else settings.servers.max_staleness
    staleness = [line["clock"] - line["version"] for line in lines]
    assert min(staleness) == 0
    assert bound is None or max(staleness) == bound


@pytest.mark.parametrize(("method", "n"), [("softsync", 1), ("softsync", 2), ("asgd", None), ("hardsync", None)])
def test_a_record_says_which_batch_came_at_which_version(method: str, n: int | None, tmp_path: Path) -> None:
    kept(tmp_path / "run", served(method, learners=4, softsync=n, jitter=1.0, servers=2))
    lines = deliveries(tmp_path / "run")
    gather = {"hardsync": 4, "asgd": 1}.get(method, 4 // (n or 1))
    assert [line["clock"] for line in lines] == [k // gather for k in range(UPDATES * gather)]
    for number in range(4):
        own = [(k, line) for k, line in enumerate(lines) if line["learner"] == number]
        assert [line["batch"] for _, line in own] == list(range(len(own)))
        # Without a bound a learner is answered as soon as its gradient is taken; in step, once all have come.
        expected = [0, *((k + 1) // gather if method != "hardsync" else k // gather + 1 for k, _ in own)]
        assert [line["version"] for _, line in own] == expected[: len(own)]


@pytest.mark.parametrize("bound", [0, 1, 2, 3])
def test_no_gradient_is_staler_than_the_bound_where_without_it_some_are(bound: int, tmp_path: Path) -> None:
    settings = served("asgd", learners=5, updates=24, slow="3=20", batch_size=2)
    task = make_task(scheduler=None)
    worst = {}
    for limit in (None, bound):
        kept(tmp_path / str(limit), changed(settings, max_staleness=limit), task)
        worst[limit] = max(line["clock"] - line["version"] for line in deliveries(tmp_path / str(limit)))
    assert worst[None] > 3
    assert worst[bound] == bound


@pytest.mark.parametrize(("method", "n"), [("softsync", 1), ("softsync", 2), ("asgd", None), ("hardsync", None)])
def test_the_summary_counts_what_the_deliveries_say(method: str, n: int | None, tmp_path: Path) -> None:
    updates = 24 if method == "asgd" else 12
    settings = served(method, learners=4, softsync=n, slow="2=4", jitter=0.1, updates=updates, log_every=5)
    settings = changed(settings, batch_size=2)
    summary = kept(tmp_path / "run", settings, make_task(scheduler=None)).summary
    assert json.loads((tmp_path / "run" / "summary.json").read_text()) == summary
    splits = {"hardsync": 1, "asgd": 4}.get(method, n)
    facts = {"method": method, "learners": 4, "servers": 1, "softsync": splits, "gradients_an_update": 4 // splits}
    assert {name: summary[name] for name in facts} == facts
    lines = deliveries(tmp_path / "run")
    staleness = {number: [] for number in range(4)}
    for line in lines:
        staleness[line["learner"]].append(line["clock"] - line["version"])
    found = {entry["learner"]: entry for entry in summary["staleness"]}
    assert found.keys() == {number for number, own in staleness.items() if own}
    whole = [tau for own in staleness.values() for tau in own]
    for own, entry in [*((staleness[number], found[number]) for number in found), (whole, summary["staleness_of_all"])]:
        assert entry["histogram"] == [own.count(tau) for tau in range(max(own) + 1)]
        assert entry["max"] == max(own)
        assert entry["mean"] == pytest.approx(sum(own) / len(own))
        assert entry["limit"] == 2 * splits
        assert entry["above_limit"] == pytest.approx(sum(tau > 2 * splits for tau in own) / len(own))
    assert (summary["staleness_of_all"]["above_limit"] > 0) is (method != "hardsync")


def test_a_recorded_order_is_repeated_whatever_the_devices_are_like_now(tmp_path: Path) -> None:
    settings = served("softsync", learners=3, softsync=3, servers=2)
    first = kept(tmp_path / "first", settings)
    again = changed(settings, jitter=0.0, servers=1, deliveries=tmp_path / "first" / DELIVERIES)
    repeated = kept(tmp_path / "again", again)
    drawn = kept(tmp_path / "drawn", changed(again, deliveries=None))
    records = [(tmp_path / name / DELIVERIES).read_text() for name in ("first", "again", "drawn")]
    assert records[0] == records[1]
    assert records[0] != records[2]
    assert same(first.model, repeated.model)
    assert not same(first.model, drawn.model)


def same(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_a_record_may_be_longer_or_shorter_than_the_run(tmp_path: Path) -> None:
    settings, task = served("softsync", learners=2, updates=8), make_task(scheduler=None)
    kept(tmp_path / "long", settings, task)
    record = tmp_path / "long" / DELIVERIES
    short = kept(tmp_path / "short", changed(settings, updates=3), task)
    for name, updates in (("less", 3), ("more", 30)):
        found = kept(tmp_path / name, changed(settings, updates=updates, deliveries=record), task)
        assert found.summary["version"] == min(updates, 8)
        if updates == 3:
            assert same(found.model, short.model)


def write_order(path: Path, *entries: int) -> Path:
    """Write an order: a learner, or -1 - l for learner l that is gone."""
    lines = [{"gone": -1 - entry} if entry < 0 else {"learner": entry} for entry in entries]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


@pytest.mark.parametrize(("n", "rule"), [(1, "constant"), (3, "inverse"), (3, "dc=0.5")])
def test_learners_that_are_gone_are_gone_and_the_others_count_as_before(n: int, rule: str, tmp_path: Path) -> None:
    orders = {
        1: (0, 1, 2, 1, 1, -2, 0, 2, 2, -1, 2, 2),
        3: (2, 0, -3, 1, 0, 0, 0, -1, 1, 1),
    }
    path = write_order(tmp_path / "order", *orders[n])
    settings = served("softsync", learners=3, softsync=n, rule=rule, deliveries=path)
    left = [entry for entry in orders[n] if entry >= 0]
    settings = changed(settings, updates=len(left) * n // 3)
    task = make_task()
    twin = changed(settings, deliveries=write_order(tmp_path / "all", *left))
    expected = loop(task, twin)
    for servers in (1, 2):
        compare(run(task, changed(settings, servers=servers)), expected)
        compare(run(task, changed(twin, servers=servers)), expected)
    kept(tmp_path / "run", settings, task)
    gone = [-1 - entry for entry in orders[n] if entry < 0]
    assert [entry["gone"] for entry in deliveries(tmp_path / "run") if "gone" in entry] == gone
    assert [number for report in metrics(tmp_path / "run") for number in report["lost"]] == gone


def test_where_learners_wait_for_each_other_those_who_are_left_fill_the_updates(tmp_path: Path) -> None:
    # Learner 0 is lost while it waits; one of the others must come twice, and the same one cannot come thrice.
    path = write_order(tmp_path / "order", 0, -1, 1, 2, 2, 1, 2, 1, 1, 2)
    changes: dict[str, Any] = {"learners": 3, "softsync": 1, "max_staleness": 0, "updates": 3}
    kept(tmp_path / "run", served("softsync", deliveries=path, servers=2, **changes))
    taken = [line for line in deliveries(tmp_path / "run") if "gone" not in line]
    assert [line["clock"] for line in taken] == [line["version"] for line in taken] == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    path = write_order(tmp_path / "order", 0, -1, 1, 2, 2, 1, 2, 1, 1, 1)
    with pytest.raises(ConfigError, match="learner 1 has no gradient to come at delivery 9"):
        kept(tmp_path / "other", served("softsync", deliveries=path, servers=2, **changes))


def test_a_server_says_whom_it_took_and_who_is_gone() -> None:
    task, settings = make_task(), served("softsync", learners=3, servers=2)
    plan = planned(task, settings)
    agents = build_agents(task, plan, plan.program.agents, CPU, Nowhere())
    push, turn = Edge("push", learner(2), server(0)), Edge("turn", server(0), server(1))
    zeros = tuple(torch.zeros(spec.shape, dtype=spec.dtype) for spec in plan.layout(push))
    take = Action(Kind.TAKE, 0, (Tag(push, 0),), (Tag(turn, 0),))
    drop = Action(Kind.DROP, 1, (), (Tag(turn, 1),))
    made = [*agents[server(0)].step(take, [Message(Tag(push, 0), 0, zeros)]), *agents[server(0)].step(drop, [])]
    assert [message.tag for message in made] == [Tag(turn, 0), Tag(turn, 1)]
    assert [message.tensors[0].tolist() for message in made] == [[2, 0], [1, 1]]
    assert [layout_of(message.tensors) for message in made] == [plan.layout(turn)] * 2


def test_the_weights_of_a_learner_that_is_gone_are_held_no_more(tmp_path: Path) -> None:
    path = write_order(tmp_path / "order", 0, 1, -3, 0, 1, 0, 1)
    settings = served("asgd", learners=3, rule="dc", deliveries=path)
    nbytes = sum(-(-p.nbytes // 64) * 64 for p in build(Net).parameters())
    # Learner 2 computes on version 0 until it is gone; of the others one is a version behind.
    assert [report["held"] // nbytes for report in record(make_task(), settings).records] == [1, 2, 1, 1, 1, 1]
    settings = changed(settings, log_every=4)
    assert [report["held"] // nbytes for report in record(make_task(), settings).records] == [2, 1]


def test_the_loop_is_of_all_that_a_run_reports(tmp_path: Path) -> None:
    task, settings = make_task(test=images(20)), served("softsync", learners=3, softsync=2, servers=2, log_every=2)
    settings = changed(settings, evaluate_every=1.0, updates=20)
    task = dataclasses.replace(task, scheduler=None)
    sink = record(task, settings)
    per_epoch = 48 / 4  # three learners have four batches of four in it; an update takes one
    assert [report["update"] for report in sink.records] == list(range(2, 21, 2))
    assert [report["epoch"] for report in sink.records] == [n / per_epoch for n in range(2, 21, 2)]
    assert [report["samples"] for report in sink.records] == [8] * 10
    losses = [loss for (loss,) in loop(task, settings).losses]
    assert [report["loss"] for report in sink.records] == [
        pytest.approx((a + b) / 2, rel=1e-12) for a, b in zip(losses[::2], losses[1::2], strict=True)
    ]
    assert all(0 <= report["train_accuracy"] <= 1 for report in sink.records)
    assert [seen["version"] for seen in sink.evaluations] == [12, 20]
    assert all(seen["consensus_distance"] == 0 for seen in sink.evaluations)
    # The model that was measured at version 12 is that of a run that ends there.
    earlier = run(task, changed(settings, updates=12))
    assert all(torch.equal(value, sink.means[0][name]) for name, value in earlier.mean.items())
    model = copy.deepcopy(task.model)
    model.load_state_dict(earlier.mean)
    x, y = images(20).tensors
    with torch.no_grad():
        measured = nn.functional.cross_entropy(model.eval()(x), y)
    assert sink.evaluations[0]["test_loss"] == pytest.approx(float(measured), rel=1e-6)


def test_reports_tell_the_learning_rate_of_their_last_update() -> None:
    rates = [1.0, 0.5, 0.25, 0.125, 0.0625, 0.03125]
    halve = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    task = make_task(optimizer=partial(torch.optim.SGD, lr=1.0), scheduler=halve)
    for every in (1, 2, 4):
        sink = record(task, served("softsync", learners=2, log_every=every))
        assert [r["lr"] for r in sink.records] == [rates[r["update"] - 1] for r in sink.records]


def test_the_loss_and_accuracy_in_training_are_those_of_the_batches_taken() -> None:
    model = build(partial(Net, plain=True))
    task = make_task(model=model, optimizer=partial(torch.optim.SGD, lr=0.0), scheduler=None)
    settings = served("softsync", learners=3, updates=4, batch_size=3)
    sink = record(task, settings)
    samples = make_batches(task, settings.training, 3, 1)
    own = Counter[int]()
    order = iter(sink.plan.program.order)  # type: ignore[attr-defined]
    for report in sink.records:
        losses, right = [], 0
        for delivery in islice(order, 3):
            b = own[delivery.learner]
            own[delivery.learner] += 1
            (x,), y = samples.inputs(delivery.learner, b), samples.targets(delivery.learner, b)
            losses.append(nn.functional.cross_entropy(model(x), y).item())
            right += int((model(x).argmax(1) == y).sum())
        assert report["loss"] == pytest.approx(sum(losses) / 3, rel=1e-12)
        assert (report["train_accuracy"], report["samples"]) == (right / 9, 9)
    assert len({report["train_accuracy"] for report in sink.records}) > 1


def test_the_accuracy_is_of_the_first_output() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(72, 3)

        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            made = self.layer(x.flatten(1))
            return made, -made

    task = make_task(model=build(Two), loss=lambda y, _, t: nn.functional.cross_entropy(y, t), scheduler=None)
    one = make_task(model=nn.Sequential(nn.Flatten(), task.model.layer), scheduler=None)
    settings = served("softsync", learners=3)
    found = [report["train_accuracy"] for report in record(task, settings).records]
    assert found == [report["train_accuracy"] for report in record(one, settings).records]
    assert max(found) > 0.5


# What is wrong


def test_a_loss_that_is_not_finite_names_learner_batch_and_version(tmp_path: Path) -> None:
    task = make_task(optimizer=partial(torch.optim.SGD, lr=1e30), scheduler=None)
    with pytest.raises(NonFiniteLoss, match=r"\(learner: \d, batch: 1, version: \d+\).*inverse.*softsync"):
        kept(tmp_path / "run", served("asgd", learners=3), task)
    assert deliveries(tmp_path / "run"), "what was taken until then is kept"


@pytest.mark.parametrize("factor", ["inf", "-inf", "nan"])
def test_every_number_that_is_not_finite_is_told_as_it_is(factor: str, tmp_path: Path) -> None:
    calls = Counter[str]()

    def loss(outputs: Tensor, target: Tensor) -> Tensor:
        calls["loss"] += 1
        return nn.functional.cross_entropy(outputs, target) * (float(factor) if calls["loss"] > 2 else 1.0)

    with pytest.raises(NonFiniteLoss, match=rf"the loss is {factor} \(learner: "):
        kept(tmp_path / "run", served("asgd", learners=2), make_task(loss=loss))


class Replacing(torch.optim.SGD):
    """Puts other tensors in the place of the parameters, some time after the run has been tried."""

    def step(self, closure: Any = None) -> None:
        super().step(closure)
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps == 3:
            for p in self.param_groups[0]["params"]:
                p.data = p.data.clone()


def test_an_optimizer_that_replaces_parameters_is_told_of(tmp_path: Path) -> None:
    task = make_task(optimizer=partial(Replacing, lr=0.1), scheduler=None)
    with pytest.raises(TrainingError, match="the optimizer or the model replaced a tensor"):
        kept(tmp_path / "run", served("asgd", learners=2, servers=2), task)


def test_a_server_refuses_a_gradient_that_is_staler_than_the_bound() -> None:
    task, settings = make_task(), served("softsync", learners=2, max_staleness=1)
    plan = planned(task, settings)
    agents = build_agents(task, plan, plan.program.agents, CPU, Nowhere())
    made: Server = agents[server(0)].agent  # type: ignore[attr-defined]
    edge = Edge("push", learner(1), server(0))
    zeros = tuple(torch.zeros(spec.shape, dtype=spec.dtype) for spec in plan.layout(edge))
    zeros[-2][-1] = 1.0  # the loss is a mean, which counts as one
    take = Action(Kind.TAKE, 0, (Tag(edge, 7),))
    for _ in range(2):
        made.step(take, [Message(Tag(edge, 7), made._weights.version, zeros)])
        made.step(Action(Kind.UPDATE, 0), [])
    made.step(take, [Message(Tag(edge, 7), 1, zeros)])
    with pytest.raises(StalenessExceeded, match=r"learner: 1, batch: 7, version: 2, staleness: 2, bound: 1"):
        made.step(take, [Message(Tag(edge, 7), 0, zeros)])


def test_a_record_that_is_of_no_such_run_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    path = write_order(tmp_path / "order", 0, 0, 1, 1)  # with a bound of 0 learner 0 would have to wait
    settings = served("softsync", learners=2, softsync=1, max_staleness=0, deliveries=path, updates=2)
    with pytest.raises(ConfigError, match="learner 0 has no gradient to come at delivery 1; this order is of no such"):
        kept(tmp_path / "run", settings)
    assert not (tmp_path / "run").exists()


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "n-0": ("softsync", {"softsync": 0, "learners": 3}, r"n from 1 to the learners \(softsync: 0, learners: 3\)"),
    "n-many": ("softsync", {"softsync": 4, "learners": 3}, r"\(softsync: 4, learners: 3\)"),
    "n-usual": ("softsync", {"softsync": 5}, r"\(softsync: 5, learners: 4\)"),
    "n-of-hardsync": ("hardsync", {"softsync": 2}, r"hardsync has no n.*\(softsync: 2\); take method softsync"),
    "n-of-asgd": ("asgd", {"softsync": 2}, r"asgd has no n.*\(softsync: 2\); take method softsync"),
    "servers-many": (
        "asgd",
        {"servers": TENSORS + 1},
        rf"\(servers: {TENSORS + 1}, tensors: {TENSORS}\).*take 1 to {TENSORS}",
    ),
    "servers-0": ("softsync", {"servers": 0}, rf"\(servers: 0, tensors: {TENSORS}\).*take 1 to {TENSORS}"),
    "learners-0": ("hardsync", {"learners": 0}, r"there must be a learner \(learners: 0\); take 1 or more"),
    "learners-negative": ("softsync", {"learners": -2}, r"\(learners: -2\); take 1 or more"),
    "bound-negative": ("asgd", {"max_staleness": -1}, r"0 or more.*\(method: asgd, max_staleness: -1\)"),
    "bound-of-hardsync": ("hardsync", {"max_staleness": 1}, r"\(method: hardsync, max_staleness: 1\)"),
    "bound-0-of-hardsync": ("hardsync", {"max_staleness": 0}, r"\(method: hardsync, max_staleness: 0\)"),
    "rule-and-corrections": (
        "softsync",
        {"rule": "dc", "corrections": ["gap-aware"]},
        r"\(method.rule: dc, method.corrections: gap-aware\); name one",
    ),
    "rule-and-none": ("softsync", {"rule": "gap", "corrections": ["none"]}, r"method\.corrections: none"),
    "rule-unknown": (
        "asgd",
        {"rule": "linear"},
        r"unknown rule \(method.rule: 'linear'\); there are: constant, inverse, exponential, dc, gap",
    ),
    "rule-negative": (
        "asgd",
        {"rule": "exponential=-1"},
        r"beta of 0 or more \(exponential-staleness=-1.0\)",
    ),
    "rule-no-number": ("asgd", {"rule": "inverse=2"}, "inverse-staleness takes no number"),
    "shrink": ("asgd", {"corrections": ["shrink=0.5"]}, "learners have no stages; leave it out"),
    "shrink-too": ("asgd", {"corrections": ["gap-aware", " shrink"]}, "learners have no stages; leave it out"),
    "correction": ("asgd", {"corrections": ["hope"]}, r"unknown correction \(correction: 'hope'\)"),
    "clip": ("asgd", {"clip": 0.0}, r"positive norm \(clip=0.0\)"),
    "batch": ("asgd", {"learners": 5, "batch_size": 11}, "a batch of 11 samples is more than a group's share of 10"),
    "updates": ("asgd", {"updates": 0}, "no update"),
    "no-record": ("asgd", {"deliveries": Path("/nowhere/at/all")}, r"cannot be read \(deliveries: /nowhere/at/all\)"),
    "deliveries-on-processes": (
        "asgd",
        {"deliveries": Path("/nowhere/at/all"), "engine": "processes", "jitter": 0.0},
        r"\(deliveries\); take engine simulator",
    ),
    "unit": ("asgd", {"learners": 2, "slow": "2=3"}, r"there is no such unit \(unit: 2,0, groups: 2"),
    "world": (
        "asgd",
        {"learners": 3, "engine": "processes", "processes": 3},
        r"4 units cannot be shared equally by 3 processes \(units: server 0 to \(2,0\)\)",
    ),
}
OF_GRIDS: dict[str, Any] = {
    "grid.groups": 2,
    "grid.stages": 1,
    "method.staleness": [0],
    "method.queues": [0],
    "method.view": "stashed",
    "mixing.kind": "none",
    "mixing.topology": "star",
    "mixing.period": 2,
    "mixing.lag": 1,
    "mixing.momentum": True,
    "method.micro_batches": 1,
    "method.reduction": "sum",
    "grid.cuts": ["fc1"],
    "devices.lateral_link": [1.0],
}
OF_SERVERS: dict[str, Any] = {
    "servers.learners": 4,
    "servers.number": 2,
    "servers.softsync": 1,
    "servers.max_staleness": 2,
    "servers.momentum_at": "learner",
    "servers.deliveries": Path("/nowhere/at/all"),
}


def with_option(settings: Settings, path: str, value: Any) -> Settings:
    group, _, name = path.partition(".")
    return dataclasses.replace(settings, **{group: dataclasses.replace(getattr(settings, group), **{name: value})})


def refused(task: Task, settings: Settings, folder: Path, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        kept(folder, settings, task)
    assert not folder.exists(), "nothing was started"


@pytest.mark.parametrize("name", list(WRONG))
def test_what_has_no_meaning_is_refused_with_value_and_remedy(name: str, tmp_path: Path) -> None:
    method, changes, text = WRONG[name]
    task = make_task(**changes.get("task", {}))
    settings = served(method, **{key: value for key, value in changes.items() if key != "task"})
    refused(task, settings, tmp_path / "run", text)


@pytest.mark.parametrize("name", list(OF_GRIDS))
@pytest.mark.parametrize("method", [method.name for method in SERVER_METHODS])
def test_settings_of_grids_are_refused_where_there_are_servers(method: str, name: str, tmp_path: Path) -> None:
    text = rf"{method} trains learners with parameter servers, not a grid \({name}: .*\); leave {name} out"
    refused(make_task(), with_option(served(method), name, OF_GRIDS[name]), tmp_path / "run", text)


@pytest.mark.parametrize("name", list(OF_SERVERS))
@pytest.mark.parametrize("method", ["pham-ahn", "sgd"])
def test_settings_of_servers_are_refused_on_grids(method: str, name: str, tmp_path: Path) -> None:
    settings = with_option(make_settings(1, 1, method=method, engine="simulator"), name, OF_SERVERS[name])
    refused(make_task(), settings, tmp_path / "run", rf"{method} trains a grid.*\({name}: .*\); leave {name} out")


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [
        (partial(torch.optim.Adam, lr=0.01), "Adam"),
        (partial(torch.optim.RMSprop, lr=0.01, momentum=0.9), "RMSprop"),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9, nesterov=True), "SGD"),
        (partial(torch.optim.SGD, lr=0.1, momentum=0.9, dampening=0.1), "SGD"),
        (partial(torch.optim.SGD, lr=0.1), "SGD"),
        (lambda p: torch.optim.SGD([{"params": p[:2], "momentum": 0.5}, {"params": p[2:]}], lr=0.1), "SGD"),
    ],
    ids=["adam", "rmsprop", "nesterov", "dampened", "none", "several"],
)
def test_learners_can_have_the_momentum_of_plain_sgd_alone(optimizer: Any, name: str, tmp_path: Path) -> None:
    task = make_task(optimizer=optimizer, scheduler=None)
    text = rf"can have the momentum of SGD.*\(optimizer: {name}, momentum_at: learner\); take momentum_at server"
    refused(task, served("softsync", momentum_at="learner"), tmp_path / "run", text)


@pytest.mark.parametrize(
    ("lines", "text"),
    [
        ('{"learner": 2}\n', r"line 1 is of a learner that does not exist.*learner: 2, learners: 2"),
        ('{"learner": 1}\n{"learner": -1}\n', r"line 2 is of a learner that does not exist.*learner: -1, learners: 2"),
        ('{"learner": 1}\n{"gone": 7}\n', r"line 2 is of a learner that does not exist.*learner: 7, learners: 2"),
        ('{"learner": 1}\nrubbish\n', "line 2 is no delivery.*rubbish"),
        ('{"learner": 1}\n', r"holds no whole update.*gradients: 1"),
        ("", "holds no whole update"),
    ],
)
def test_a_record_of_other_learners_or_of_nothing_is_refused(lines: str, text: str, tmp_path: Path) -> None:
    (tmp_path / "order").write_text(lines)
    settings = served("softsync", learners=2, deliveries=tmp_path / "order")
    refused(make_task(), settings, tmp_path / "run", text)


def test_what_is_settled_runs_the_same_way_again(tmp_path: Path) -> None:
    for method, changes in (
        ("softsync", {"rule": "dc=0.3", "softsync": 2}),
        ("softsync", {}),
        ("asgd", {"rule": "constant"}),
        ("hardsync", {"learners": 2}),
        ("asgd", {"corrections": ["none"], "max_staleness": 1}),
    ):
        task, settings = make_task(), served(method, **changes)
        plan = planned(task, settings)
        settled = plan.settled(settings)
        assert settled.servers.learners == changes.get("learners", 4)
        assert settled.servers.softsync == plan.splits
        assert settled.method.rule is None
        assert settled.method.corrections
        again = planned(task, settled)
        assert again.settled(settled) == settled
        assert (again.rules, again.splits, again.program) == (plan.rules, plan.splits, plan.program)
        compare(run(task, settled), run(task, settings))


def test_the_method_settles_how_many_gradients_an_update_takes_and_what_becomes_of_them() -> None:
    def of(method: str, **changes: Any) -> tuple[int, int | None, tuple[str, ...]]:
        plan = planned(make_task(), served(method, batch_size=2, **changes))
        assert (plan.rules.learners, len(plan.grid)) == (changes["learners"],) * 2
        return plan.rules.gather, plan.rules.bound, plan.corrections

    assert of("hardsync", learners=5) == (5, 0, ())
    assert of("asgd", learners=5) == (1, None, ())
    assert of("asgd", learners=5, max_staleness=2) == (1, 2, ())
    own = ("inverse-staleness",)
    assert [of("softsync", learners=7, softsync=n)[0] for n in (None, *range(1, 8))] == [7, 7, 3, 2, 1, 1, 1, 1]
    assert of("softsync", learners=7, max_staleness=0) == (7, 0, own)
    assert of("softsync", learners=2, rule="constant")[2] == ()
    assert of("softsync", learners=2, corrections=[])[2] == ()
    assert planned(make_task(), served("asgd")).rules.learners == 4


def test_an_order_may_be_asked_for_by_hand_and_is_what_the_loop_does(tmp_path: Path) -> None:
    order = [2, 2, 0, 1, 2, 0]
    settings = served("asgd", learners=3, rule="dc=0.5", deliveries=write_order(tmp_path / "order", *order))
    task = make_task()
    plan = planned(task, settings)
    assert plan.program.order == [Delivery(number) for number in order]  # type: ignore[attr-defined]
    found = plain_loop(task, plan, CPU)
    assert isinstance(found, partial)
    assert found.func.__name__ == "_server"
    arguments = found.args[1] | {"rule": ("dc", 0.5), "order": order, "c": 1}
    by_hand = softsync(**arguments)
    compare(run(task, settings), outcome(([[by_hand[0]]], [by_hand[1]])))
