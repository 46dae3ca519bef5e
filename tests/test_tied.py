"""A parameter that several stages use, against loops over the whole model and against a copy that crosses the cuts."""

import copy
import random
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.utils.data import TensorDataset

from stalegrid.config import Settings
from stalegrid.errors import ConfigError, StalenessExceeded, TrainingError
from stalegrid.plans.material import make_batches
from stalegrid.plans.plan import Plan
from stalegrid.plans.task import Task
from stalegrid.plans.telling import facts, headline
from stalegrid.programs.actions import Edge
from stalegrid.programs.grid import Unit
from stalegrid.programs.ties import GRADIENT, WEIGHTS
from stalegrid.stages.mirrors import Mirrors
from stalegrid.studies.loops import plain_loop
from stalegrid.studies.verifying import LOOPS, run_engine, verify
from tests.cases import UPDATES, build, changed, make_plan, make_settings, make_task, record_simulator, run_simulator
from tests.pairs import pairs
from tests.tied import CUTS, WIDTH, WORDS, Block, Writer, sentences, writer

pytestmark = pytest.mark.thorough

ADAM = partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)
NADAM = partial(torch.optim.NAdam, lr=0.01, betas=(0.99, 0.999), decoupled_weight_decay=True)


def task_of(thrice: bool = False, explicit: bool = False, **changes: Any) -> Task:
    return make_task(**({"model": writer(thrice, explicit), "data": sentences()} | changes))


def settings_of(stages: int, groups: int = 1, **changes: Any) -> Settings:
    return make_settings(groups, stages, **({"cuts": CUTS.get(stages)} | changes))


Version = Callable[[int, int], int]
"""(stage, batch) -> updates that its forward has seen."""


def whole_loop(task: Task, plan: Plan, version: Version, clip: float | None = None) -> tuple[dict[str, Tensor], Any]:
    """Train the whole model in one graph a batch, in which the parameters of every stage are as old as they are said.

    This is what a method is whose backwards see the weights of their forwards; a tied parameter is its owner's, in all
    its uses.
    """
    micro, samples = plan.schedule.micro_batches, make_batches(task, plan.training, 1, plan.schedule.micro_batches)
    model = copy.deepcopy(task.model)
    own = dict(model.named_parameters())
    first = {id(p): name for name, p in own.items()}
    known = {name: first[id(p)] for name, p in model.named_parameters(remove_duplicate=False)}
    stage = {known[e.name]: k for k, read in enumerate(plan.stages) for e in read.entries}
    assert stage.keys() == {name for name, p in own.items() if p.requires_grad}
    parts = [part for read in plan.stages if (part := [own[known[e.name]] for e in read.entries])]
    optimizers = [task.optimizer(part) for part in parts]
    schedulers = [] if task.scheduler is None else [task.scheduler(each) for each in optimizers]
    past: list[dict[str, Tensor]] = []
    losses = []
    for n in range(UPDATES):
        past.append({name: own[name].detach().clone() for name in stage})
        total = 0.0
        for b in range(n * micro, (n + 1) * micro):
            then = {name: past[version(k, b)][name].clone().requires_grad_() for name, k in stage.items()}
            loss = task.loss(functional_call(model, then, samples.inputs(0, b)), samples.targets(0, b))
            torch.autograd.backward(loss, torch.full_like(loss, 1 / micro))
            total += loss.item()
            for name, leaf in then.items():
                gradient = own[name].grad
                own[name].grad = leaf.grad if gradient is None or leaf.grad is None else gradient + leaf.grad
        losses.append(total / micro)
        for part, optimizer in zip(parts, optimizers, strict=True):
            if clip is not None:
                nn.utils.clip_grad_norm_(part, clip)
            optimizer.step()
            optimizer.zero_grad()
        for scheduler in schedulers:
            scheduler.step()
    return {e.name: own[known[e.name]].detach() for read in plan.stages for e in read.entries}, losses


def hold_to_the_loop(task: Task, settings: Settings, version: Version, clip: float | None = None) -> Plan:
    plan = make_plan(task, settings)
    assert plan.program.ties.each
    found = record_simulator(task, settings, plan).outcome()
    expected, losses = whole_loop(task, plan, version, clip)
    assert [name for name, value in expected.items() if not torch.equal(found.parameters[0, name], value)] == []
    assert [loss for (loss,) in found.losses] == pytest.approx(losses, rel=1e-6)  # reports average in another order
    return plan


def stale_version(m: list[int], micro: int) -> Version:
    return lambda k, b: max(0, b - m[k]) // micro


@pytest.mark.parametrize(("stages", "thrice", "micro"), pairs((2, 3, 4), (False, True), (1, 3)))
def test_without_staleness_it_is_the_plain_model(stages: int, thrice: bool, micro: int) -> None:
    settings = settings_of(stages, staleness=[0] * stages, micro_batches=micro, batch_size=6)
    hold_to_the_loop(task_of(thrice), settings, lambda k, b: b // micro)


@pytest.mark.parametrize(("stages", "thrice", "method"), pairs((2, 3, 4), (False, True), ("gpipe", "1f1b")))
def test_with_a_flush_it_is_the_plain_model(stages: int, thrice: bool, method: str) -> None:
    settings = settings_of(stages, method=method, micro_batches=3, batch_size=6)
    hold_to_the_loop(task_of(thrice), settings, lambda k, b: b // 3)


@pytest.mark.parametrize("micro", [1, 2, 3])
@pytest.mark.parametrize("m", [[2, 1, 0], [4, 2, 0], [3, 3, 3], [5, 0, 0], [4, 4, 1], [3, 1, 1], [20, 3, 2]], ids=str)
def test_late_gradients_are_those_of_the_model_with_every_use_as_old_as_the_owner(m: list[int], micro: int) -> None:
    settings = settings_of(3, staleness=m, micro_batches=micro, batch_size=6, view="stashed")
    hold_to_the_loop(task_of(True), settings, stale_version(m, micro))


def test_of_four_stages_two_lie_between_an_owner_and_a_mirror() -> None:
    plan = hold_to_the_loop(task_of(), settings_of(4, method="pham-ahn"), stale_version([6, 4, 2, 0], 1))
    assert plan.program.ties.each[0].stages == (0, 3)


@pytest.mark.parametrize("changes", [{}, {"optimizer": ADAM, "scheduler": None}], ids=["momentum", "adamw"])
@pytest.mark.parametrize("clip", [None, 0.05])
def test_optimizers_and_clipping_see_the_whole_gradient(clip: float | None, changes: dict[str, Any]) -> None:
    settings = settings_of(3, method="pipedream", clip=clip)
    hold_to_the_loop(task_of(True, **changes), settings, stale_version([2, 1, 0], 1), clip)


@pytest.mark.parametrize("m", [None, [3, 1, 0], [0, 0, 0]], ids=str)
def test_two_versions_of_a_double_buffer(m: list[int] | None) -> None:
    settings = settings_of(3, method="pipedream-2bw", staleness=m, micro_batches=3, batch_size=6)
    hold_to_the_loop(task_of(True), settings, lambda k, b: max(0, b // 3 - 1))


class Crossed(nn.Module):
    """Two tied parameters, of different owners, that lie in each other's way; one of them of two modules."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.embedding = nn.Embedding(WORDS, WIDTH)
        self.scale = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.embedding.weight
        self.d.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.a(self.embedding(x)).sum(1))
        h = torch.tanh(self.b(h) * self.scale)
        h = torch.tanh(self.c(h) @ self.b.weight.t())
        h = torch.tanh(self.d(h) * self.scale)
        return self.head(h)


def test_two_tied_parameters_with_different_owners() -> None:
    task = task_of(model=build(Crossed))
    settings = settings_of(4, staleness=[5, 3, 2, 0], cuts=["b", "c", "d"], view="stashed")
    plan = hold_to_the_loop(task, settings, stale_version([5, 3, 2, 0], 1))
    assert sorted(tie.stages for tie in plan.program.ties.each) == [(0, 3), (1, 2, 3), (1, 3)]


class HeadFirst(Writer):
    """The matrix is the head's by its first name, and the embedding's where it is trained."""

    def __init__(self) -> None:
        super().__init__()
        embedding = self.embedding
        del self.embedding
        self.embedding = embedding


def test_the_owner_may_call_it_by_another_name_than_the_model() -> None:
    model = build(HeadFirst)
    assert next(name for name, p in model.named_parameters() if p is model.head.weight) == "head.weight"
    settings = settings_of(3, method="pipedream")
    plan = hold_to_the_loop(task_of(model=model), settings, stale_version([2, 1, 0], 1))
    assert plan.program.ties.each[0].names == ("embedding.weight", "head.weight")

    def by_identity(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
        groups = [{"params": [p], "lr": 0.2 if p is model.head.weight else 0.1} for p in parameters]
        return torch.optim.SGD(groups, lr=0.1)

    refused(
        "factory treats a parameter otherwise", task_of(model=model, optimizer=by_identity, scheduler=None), settings
    )


class Recurrent(nn.Module):
    """A block with all its parameters in three stages, of which each has a layer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.block = nn.Embedding(WORDS, WIDTH), Block()
        self.one, self.two, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(self.block(self.embedding(x)))
        h = self.two(self.block(h))
        return self.head(self.block(h)[:, -1])


@pytest.mark.parametrize("dtype", [None, "float64"])
def test_a_whole_block_can_be_tied(dtype: str | None) -> None:
    task, cuts = task_of(model=build(Recurrent)), ["block_norm1_1", "block_norm1_2"]
    settings = settings_of(3, staleness=[4, 2, 0], cuts=cuts, view="stashed", dtype=dtype)
    plan = make_plan(task, settings)
    assert {tie.stages for tie in plan.program.ties.each} == {(0, 1, 2)}
    assert len(plan.program.ties.each) == len(list(Block().parameters()))
    if dtype is None:
        hold_to_the_loop(task, settings, stale_version([4, 2, 0], 1))
    else:
        assert plan.layout(Edge(WEIGHTS, Unit(0, 0), Unit(0, 2)))[0].dtype == torch.float64
        run_simulator(task, settings, plan)


class Drawn(nn.Module):
    """Layers of its own, and between them drawn ones that read one of a few matrices in one of several ways."""

    def __init__(self, draw: random.Random) -> None:
        super().__init__()
        uses = [(draw.choice(["plain", "transposed", "rows", "twice"]), draw.randrange(4)) for _ in range(7)]
        read = sorted({number for _, number in uses})
        self.uses = [(how, read.index(number)) for how, number in uses]
        self.shared = nn.ParameterList([nn.Parameter(torch.randn(WIDTH, WIDTH) / 2) for _ in read])
        self.scale = nn.Parameter(torch.tensor(1.25))
        self.own = nn.ModuleList([nn.Linear(WIDTH, WIDTH) for _ in uses])
        self.embedding = nn.Embedding(WORDS, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        h = self.embedding(x).sum(1) * self.scale
        for (how, number), own in zip(self.uses, self.own, strict=True):
            h, w = own(h), self.shared[number]
            if how == "plain":
                h = F.linear(h, w)
            elif how == "transposed":
                h = h @ w
            elif how == "rows":
                h = h * w[0] + w[1]
            else:
                h = F.linear(F.linear(h, w).tanh(), w.t())
            h = torch.tanh(h)
        return F.linear(h * self.scale, self.embedding.weight)


@pytest.mark.parametrize("seed", range(12))
def test_drawn_ties_on_drawn_schedules(seed: int) -> None:
    draw = random.Random(seed)
    stages, micro = draw.randint(2, 5), draw.choice([1, 2, 3])
    cuts = [f"own.{i}" for i in sorted(draw.sample(range(1, 7), stages - 1))]
    m = sorted((draw.randint(0, 6) for _ in range(stages)), reverse=True)
    settings = settings_of(stages, cuts=cuts, staleness=m, micro_batches=micro, batch_size=6, view="stashed")
    hold_to_the_loop(task_of(model=build(lambda: Drawn(draw))), settings, stale_version(m, micro))


# A mirror is an input of the batch, like an activation.  So a model that makes a copy of the matrix beside its first
# use, and lets that cross the cuts, computes the same: by messages through every stage, which the tests of the grid
# hold against the loops of the papers.
METHODS: dict[str, dict[str, Any]] = {
    "dsp": {},
    "fdg": {},
    "adl": {"micro_batches": 2},
    "ddg": {},
    "features-replay": {},
    "pipedream": {},
    "pipedream-2bw": {"micro_batches": 4, "batch_size": 8},
    "pipemare": {},
    "spectrain": {},
    "pipeoptim": {},
    "async-nesterov": {},
    "paci": {"micro_batches": 2},
    "gpipe": {"micro_batches": 2},
    "1f1b": {"micro_batches": 4},
    "pham-ahn": {},
}


def hold_to_the_copy(settings: Settings, thrice: bool = False, **changes: Any) -> None:
    tied, crossing = task_of(thrice, **changes), task_of(thrice, explicit=True, **changes)
    plans = make_plan(tied, settings), make_plan(crossing, settings)
    assert [bool(plan.program.ties.each) for plan in plans] == [True, False]
    found, expected = run_simulator(tied, settings, plans[0]), run_simulator(crossing, settings, plans[1])
    assert found.parameters.keys() == expected.parameters.keys()
    unlike = [key for key, value in expected.parameters.items() if not torch.equal(found.parameters[key], value)]
    assert unlike == []
    assert found.losses == expected.losses


@pytest.mark.parametrize(("method", "stages"), [(method, 3 + i % 2) for i, method in enumerate(METHODS)])
def test_every_method_computes_as_if_a_copy_crossed_the_cuts(method: str, stages: int) -> None:
    changes = {"optimizer": NADAM, "scheduler": None} if method == "async-nesterov" else {}
    hold_to_the_copy(settings_of(stages, method=method, **METHODS[method]), stages == 3, **changes)


@pytest.mark.parametrize("view", ["stashed", "current", "recomputed", "predicted", "predicted-twice", "corrected"])
@pytest.mark.parametrize("micro", [2, 3])
def test_every_view_with_micro_batches(view: str, micro: int) -> None:
    hold_to_the_copy(settings_of(3, staleness=[4, 3, 1], view=view, micro_batches=micro, batch_size=6), True)


@pytest.mark.parametrize(
    "changes",
    [
        {"mixing": "combine-while-adapt"},
        {"mixing": "combine-while-adapt", "lag": 1},
        {"mixing": "combine-while-adapt", "period": 2, "lag": 2},
        {"mixing": "adapt-then-combine", "momentum": True},
        {"mixing": "adapt-then-combine", "period": 2, "lag": 1},
        {"mixing": "all-reduce"},
        {"mixing": "none"},
    ],
    ids=str,
)
@pytest.mark.parametrize("view", ["stashed", "recomputed"])
def test_groups_mix_what_the_owner_has(changes: dict[str, Any], view: str) -> None:
    hold_to_the_copy(settings_of(3, 2, method="pham-ahn", view=view, **changes), True)


def counted(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return a sum over the samples of some targets, and how many those are."""
    losses, counts = F.cross_entropy(outputs, targets, reduction="none"), targets > 2
    return (losses * counts).sum(), counts.sum()


@pytest.mark.parametrize("groups", [1, 2])
def test_losses_that_are_sums_and_targets_that_travel(groups: int) -> None:
    settings = settings_of(
        3, groups, method="pipedream", mixing="all-reduce", batch_size=8, micro_batches=2, targets="travel"
    )
    hold_to_the_copy(settings, True, loss=counted)


def test_below_what_is_trained_stages_forward_only() -> None:
    model = build(Crossed)
    assert isinstance(model, Crossed)
    for part in (model.a, model.embedding):
        part.requires_grad_(False)
    settings = settings_of(4, staleness=[5, 3, 2, 0], cuts=["b", "c", "d"], view="stashed")
    plan = hold_to_the_loop(task_of(model=model), settings, stale_version([5, 3, 2, 0], 1))
    assert plan.program.frozen == 1
    assert sorted(tie.stages for tie in plan.program.ties.each) == [(1, 2, 3), (1, 3)]


@pytest.mark.parametrize("micro", [1, 2])
def test_a_stage_of_a_mirror_alone_trains_nothing_and_sends_its_gradient(micro: int) -> None:
    settings = settings_of(3, cuts=["block2", "head"], staleness=[4, 2, 1], micro_batches=micro, view="stashed")
    plan = hold_to_the_loop(task_of(), settings, stale_version([4, 2, 1], micro))
    assert [bool(read.parameters) for read in plan.stages] == [True, True, False]


@pytest.mark.parametrize(
    "corrections", [["dc-asgd=0.5"], ["gap-aware"], ["shrink=0.5", "clip=0.05"], ["error-feedback"]], ids=str
)
def test_corrections_act_on_all_uses_alike(corrections: list[str]) -> None:
    hold_to_the_copy(settings_of(3, method="pham-ahn", groups=1, corrections=corrections), True)


@pytest.mark.parametrize(
    ("groups", "changes"),
    [
        (1, {"method": "pipedream"}),
        (2, {"method": "dsp", "mixing": "adapt-then-combine", "lag": 1}),
        (1, {"method": "1f1b", "cuts": ["block2", "head"]}),
    ],
)
def test_processes_have_the_same_bits(groups: int, changes: dict[str, Any]) -> None:
    task, settings = task_of(True), settings_of(3, groups, **changes)
    plan = make_plan(task, settings)
    simulated, found = (run_engine(task, changed(settings, engine=e), plan) for e in ("simulator", "processes"))
    assert plan.program.ties.each
    assert found.parameters.keys() == simulated.parameters.keys()
    assert all(torch.equal(found.parameters[key], value) for key, value in simulated.parameters.items())
    assert found.losses == simulated.losses


@pytest.mark.parametrize(("groups", "stages"), [(1, 3), (3, 2)])
def test_verify_knows_a_plain_loop_where_there_is_a_flush(groups: int, stages: int) -> None:
    settings = settings_of(stages, groups, method="1f1b", micro_batches=2)
    assert [(d.name, d.equal) for d in verify(task_of(True), settings)] == [("processes", True), (LOOPS, True)]
    plan = make_plan(task_of(), settings_of(2, method="pipedream"))
    assert plain_loop(task_of(), plan, torch.device("cpu")) is None


def test_a_frozen_parameter_that_stages_share_needs_no_message() -> None:
    model = writer(True)
    assert isinstance(model, Writer)
    model.embedding.weight.requires_grad_(False)
    task, settings = task_of(model=model), settings_of(3, staleness=[2, 1, 0], view="stashed")
    plan = make_plan(task, settings)
    assert plan.program.ties.each == ()
    found = run_simulator(task, settings, plan)
    expected, _ = whole_loop(task, plan, stale_version([2, 1, 0], 1))
    assert "embedding.weight" not in expected
    assert all(torch.equal(found.parameters[0, name], value) for name, value in expected.items())


class Penalised(nn.Module):
    """A parameter of the first stage is an output of the model too, for a penalty, and used nowhere else above."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.middle = nn.Embedding(WORDS, WIDTH), nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.head(self.middle(self.embedding(x).sum(1))), self.embedding.weight


def penalised(outputs: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets) + weight.square().mean()


def test_a_parameter_that_the_model_returns_is_a_use_in_the_last_stage() -> None:
    task = task_of(model=build(Penalised), loss=penalised)
    settings = settings_of(2, staleness=[0, 0], cuts=["middle"])
    plan = make_plan(task, settings)
    assert [tie.stages for tie in plan.program.ties.each] == [(0, 1)]
    unpacked = task_of(model=build(Penalised), loss=lambda made, targets: penalised(*made, targets))
    expected, _ = whole_loop(unpacked, plan, lambda k, b: b)
    found = run_simulator(task, settings, plan)
    assert all(torch.equal(found.parameters[0, name], value) for name, value in expected.items())


class Seldom(Writer):
    """The head reads a matrix of its own in place of the tied one: the last stage has a mirror without a gradient."""

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.block3(self.block2(self.block1(self.embedding(x) + self.places))))[:, -1]
        return h @ self.embedding.weight.t().detach()


def test_a_use_without_a_gradient_adds_none() -> None:
    hold_to_the_loop(task_of(model=build(Seldom)), settings_of(3, method="pipedream"), stale_version([2, 1, 0], 1))


def hooked(model: nn.Module) -> nn.Module:
    assert isinstance(model, Writer)
    model.embedding.weight.register_hook(lambda g: g.clamp(-0.01, 0.01))
    return model


def test_hooks_on_a_gradient_see_the_sum_over_all_uses() -> None:
    task, settings = task_of(model=hooked(writer(True))), settings_of(3, staleness=[0, 0, 0])
    plan = make_plan(task, settings)
    found, model = run_simulator(task, settings, plan), writer(True)
    own, samples = dict(model.named_parameters()), make_batches(task, plan.training, 1, 1)
    optimizer = task.optimizer(list(own.values()))
    assert task.scheduler is not None
    scheduler = task.scheduler(optimizer)
    hooked(model)
    for b in range(UPDATES):
        task.loss(model(*samples.inputs(0, b)), samples.targets(0, b)).backward()
        assert float(own["embedding.weight"].grad.abs().max()) <= 0.01
        optimizer.step()
        optimizer.zero_grad()
        scheduler.step()
    assert all(torch.equal(found.parameters[0, name], value) for name, value in own.items())


class Dictionary(Writer):
    """So many words that their matrix is most of what there is."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.head = nn.Embedding(3000, WIDTH), nn.Linear(WIDTH, 3000, bias=False)
        self.head.weight = self.embedding.weight


@pytest.mark.parametrize(
    "changes",
    [
        {"view": "stashed"},
        {"view": "current"},
        {"view": "recomputed"},
        {"view": "predicted"},
        {"view": "stashed", "micro_batches": 2},
        {"method": "gpipe", "micro_batches": 4, "staleness": None},
    ],
    ids=str,
)
def test_what_a_mirror_holds_is_what_the_plan_says(changes: dict[str, Any]) -> None:
    settings = settings_of(3, **({"staleness": [6, 4, 2], "updates": 16} | changes))
    task = task_of(model=build(Dictionary), scheduler=None)
    sink = record_simulator(task, settings)
    held = max(record["staleness"]["(0,2)"]["held"] for record in sink.records)
    assert held <= sink.plan.held[2]
    assert held == pytest.approx(sink.plan.held[2], rel=0.1)


def test_a_user_at_another_version_than_the_owner_ends_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    renew = Mirrors.renew

    def late(self: Mirrors, name: str, value: Tensor, version: int) -> None:
        renew(self, name, value, version - 1)

    monkeypatch.setattr(Mirrors, "renew", late)
    with pytest.raises(StalenessExceeded, match=r"used at two versions in one batch \(parameter: embedding.weight"):
        run_simulator(task_of(), settings_of(2, method="pipedream"))


def test_messages_weigh_what_the_parameter_does() -> None:
    plan = make_plan(task_of(True), settings_of(3))
    matrix, versions = 4 * WORDS * WIDTH, 8
    low, middle, high = (Unit(0, k) for k in range(3))
    assert [plan.nbytes(Edge(WEIGHTS, low, unit)) for unit in (middle, high)] == [matrix, matrix]
    assert plan.nbytes(Edge(GRADIENT, high, middle)) == plan.nbytes(Edge(GRADIENT, middle, low)) == matrix + versions


def test_a_run_says_in_its_first_line_and_its_summary_what_is_tied() -> None:
    plan = make_plan(task_of(True), settings_of(3))
    assert ", tied: embedding.weight of stage 0 mirrored in 1, 2; staleness" in headline(plan, "simulator", 1)
    assert facts(plan)["tied"] == {"embedding.weight": [0, 1, 2]}
    many = make_plan(task_of(model=build(Recurrent)), settings_of(3, cuts=["block_norm1_1", "block_norm1_2"]))
    assert "mirrored in 1, 2; 7 more; staleness" in headline(many, "simulator", 1)


def test_weights_travel_once_an_update_and_not_with_every_micro_batch() -> None:
    task = task_of()
    for view, expected in (("stashed", UPDATES - 1), ("predicted", UPDATES * 3)):
        settings = settings_of(2, staleness=[2, 0], micro_batches=3, batch_size=6, view=view)
        program = make_plan(task, settings).program
        sent = [t for a in program.actions(Unit(0, 0)) for t in a.sends if t.edge.name == WEIGHTS]
        assert len(sent) == expected


class Late(nn.Embedding):
    """Scales its weights in a forward that no trial sees."""

    seen: Tensor

    def __init__(self) -> None:
        super().__init__(WORDS, WIDTH)
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64))

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        if self.seen > 25:
            with torch.no_grad():
                self.weight.mul_(0.5)
        return super().forward(x)


class LateWriter(Writer):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = Late()
        self.head.weight = self.embedding.weight


def test_a_forward_that_changes_a_tied_parameter_later_ends_the_run() -> None:
    task = task_of(model=build(LateWriter), scheduler=None)
    with pytest.raises(TrainingError, match=r"changes a tied parameter in place \(unit: \(0,0\), batch: 25\)"):
        run_simulator(task, settings_of(2, method="pipedream", updates=40))


# Refusals.


def refused(match: str, task: Task, settings: Settings) -> None:
    with pytest.raises(ConfigError, match=match):
        make_plan(task, settings)


def test_together_is_what_the_user_may_ask_for() -> None:
    refused(
        r"name: embedding.weight, stages: 0, 1\) that should stay together",
        task_of(),
        settings_of(2, method="pipedream", tied="together"),
    )
    refused(
        "all uses of a parameter or buffer stay in one stage", task_of(), settings_of(2, cuts=None, tied="together")
    )
    plan = make_plan(task_of(), settings_of(2, cuts=None))
    assert [tie.stages for tie in plan.program.ties.each] == [(0, 1)]


def test_the_choice_is_written_down() -> None:
    plan = make_plan(task_of(), settings := settings_of(2))
    assert plan.settled(settings).grid.tied == "mirror"


class Renormed(nn.Module):
    """Two modules of one matrix, both of which scale down the rows that they read."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = (nn.Embedding(WORDS, WIDTH, max_norm=0.5) for _ in range(2))
        self.two.weight = self.one.weight
        self.middle, self.head = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.middle(self.one(x).sum(1))
        return self.head(h + self.two(x).sum(1))


def test_a_forward_that_changes_a_tied_parameter_is_refused() -> None:
    refused(
        r"changes a tied parameter in place \(stage: 0, name: one.weight\)",
        task_of(model=build(Renormed)),
        settings_of(2, method="pipedream", cuts=["two"]),
    )


class Sparse(Writer):
    def __init__(self) -> None:
        super().__init__()
        self.embedding.sparse = True


def test_sparse_gradients_of_tied_parameters_are_refused() -> None:
    refused(
        "a gradient is sparse, but .* mirrors work on whole ones",
        task_of(model=build(Sparse), optimizer=partial(torch.optim.SGD, lr=0.1), scheduler=None),
        settings_of(2, staleness=[0, 0]),
    )


class Twice(nn.Module):
    """A layer with running statistics in two stages."""

    def __init__(self, frozen: bool = False) -> None:
        super().__init__()
        self.one, self.two, self.three = (nn.Linear(4, 4) for _ in range(3))
        self.norm = nn.BatchNorm1d(4)
        self.average = nn.Parameter(torch.zeros(4), requires_grad=False)
        self.frozen = frozen

    def forward(self, x: Tensor) -> Tensor:
        if not self.frozen:
            return self.three(self.norm(self.two(self.norm(self.one(x)))))
        self.average.mul_(0.5).add_(x.detach().mean(0))
        h = self.two(self.one(x))
        self.average.mul_(0.5).add_(h.detach().mean(0))
        return self.three(h - self.average)


def rows() -> TensorDataset:
    return TensorDataset(torch.randn(40, 4, generator=torch.Generator().manual_seed(0)), torch.arange(40) % 4)


def test_a_module_with_running_statistics_in_two_stages_is_refused() -> None:
    refused(
        r"two stages share a buffer \(name: norm.running_mean, stages: 0, 1\).*running statistics",
        task_of(model=build(Twice), data=rows()),
        settings_of(2, cuts=["two"]),
    )


def test_a_frozen_average_that_two_stages_move_is_refused() -> None:
    # The first stage that moves it, or the copies of the stages held against the model, whichever sees it first.
    refused(
        "frozen parameter that a forward changes|compute something else than the model",
        task_of(model=build(lambda: Twice(frozen=True)), data=rows()),
        settings_of(2, cuts=["two"]),
    )
