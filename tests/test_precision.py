"""Forwards under autocast, parameters in float32: held against plain loops under ``torch.autocast``, bit for bit."""

import copy
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import stalegrid
from stalegrid.checkpoints.layout import FOLDER
from stalegrid.config import Settings
from stalegrid.data.batches import Batches
from stalegrid.observe import METRICS
from stalegrid.programs.grid import Unit
from stalegrid.runs.planning import _check_on
from stalegrid.stages.views.named import VIEWS
from stalegrid.studies.loops import OWN, plain_loop
from stalegrid.studies.reference.fdg import fdg
from stalegrid.studies.reference.grid import grid
from stalegrid.studies.reference.paci import paci
from stalegrid.studies.reference.pipemare import pipemare
from stalegrid.studies.reference.pipeoptim import pipeoptim
from stalegrid.studies.reference.spectrain import spectrain
from stalegrid.studies.verifying import LOOPS, outcome_of, verify
from tests import tied
from tests.cases import (
    CPU,
    CUTS,
    OPTIMIZERS,
    Net,
    build,
    changed,
    compare,
    flat,
    images,
    make_plan,
    make_settings,
    make_task,
    record_simulator,
    run_reference,
    run_simulator,
)
from tests.test_resumed_grids import check_resumed, grid_of
from tests.test_resumed_grids import train as train_saved

UPDATES, BATCH = 8, 8
BF16 = {"precision": "bf16"}
AMP = partial(torch.autocast, "cpu", dtype=torch.bfloat16)


def sgd(parameters: Any) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.05, momentum=0.9, weight_decay=0.01)


def layers() -> nn.Module:
    """Return layers of which some compute in bfloat16 and some in float32; there is nothing random in them."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(72, 16),
        nn.LayerNorm(16),
        nn.GELU(),
        nn.Linear(16, 16),
        nn.BatchNorm1d(16),
        nn.Tanh(),
        nn.Linear(16, 3),
    )


def pictures() -> nn.Module:
    return Net(plain=True)


class Own(nn.Module):
    """A part that switches autocast off, and one that switches it on once more."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.outer, self.last = nn.Linear(72, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", enabled=False):
            h = self.inner(x.flatten(1))
        with torch.autocast("cpu", dtype=torch.bfloat16):
            h = torch.tanh(self.outer(h))
        return self.last(h.float())


MODELS: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "layers": (layers, "4"),
    "pictures": (pictures, "conv2"),
    "regions of its own": (Own, "outer"),
}


def data() -> Batches:
    return Batches(images(), groups=1, batch_size=BATCH, seed=5)


def plain(model: nn.Module, cached: bool = True, optimizer: Any = sgd) -> tuple[nn.Module, list[float]]:
    """Train as torch's own pages say."""
    model, batches, losses = model.train(), data(), []
    step = optimizer(model.parameters())
    for n in range(UPDATES):
        with AMP(cache_enabled=cached):
            loss = F.cross_entropy(model(*batches.inputs(0, n)), batches.targets(0, n))
        loss.backward()
        step.step()
        step.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def late(model: nn.Sequential, cut: int, m: int) -> tuple[nn.Module, list[float]]:
    """Train two stages, the first with gradients that are m updates late, each exact at the weights of its forward."""
    stages, batches, losses = (model[:cut].train(), model[cut:].train()), data(), []
    steps = [sgd(stage.parameters()) for stage in stages]
    flying: list[tuple[nn.Module, Tensor]] = []
    for n in range(UPDATES):
        while len(flying) <= m and n + len(flying) < UPDATES:
            # A copy, whose weights nobody changes before its backward.
            own = copy.deepcopy(stages[0])
            with AMP():
                h = own(*batches.inputs(0, n + len(flying)))
            for kept, new in zip(stages[0].buffers(), own.buffers(), strict=True):
                kept.copy_(new)
            flying.append((own, h))
        own, h = flying.pop(0)
        crossing = h.detach().requires_grad_()
        with AMP():
            loss = F.cross_entropy(stages[1](crossing), batches.targets(0, n))
        loss.backward()
        h.backward(crossing.grad)
        for kept, used in zip(stages[0].parameters(), own.parameters(), strict=True):
            kept.grad = used.grad
        for step in steps:
            step.step()
            step.zero_grad()
        losses.append(float(loss.detach()))
    return model, losses


def trained(model: nn.Module, **options: Any) -> tuple[nn.Module, list[float]]:
    common: dict[str, Any] = {"batch_size": BATCH, "updates": UPDATES, "seed": 5, "quiet": True, "engine": "simulator"}
    with TemporaryDirectory() as folder:
        result = stalegrid.train(
            model,
            images(),
            loss=nn.CrossEntropyLoss(),
            output=stalegrid.OutputSettings(folder=Path(folder) / "run", log_every=1),
            **{"optimizer": sgd, **common, **BF16, **options},
        )
        assert result.folder is not None
        lines = [json.loads(line) for line in (result.folder / METRICS).read_text().splitlines()]
    return result.model, [line["loss"] for line in lines if line["kind"] == "train"]


def check_same(found: tuple[nn.Module, list[float]], expected: tuple[nn.Module, list[float]]) -> None:
    assert found[1] == expected[1]
    for (name, one), other in zip(expected[0].state_dict().items(), found[0].state_dict().values(), strict=True):
        assert one.dtype == other.dtype
        assert torch.equal(one, other), name


WAYS: dict[str, dict[str, Any]] = {
    "one stage": {"method": "sgd"},
    "two stages": {"method": "pipedream", "stages": 2, "staleness": [0, 0]},
    "two stages and a flush": {"method": "1f1b", "stages": 2, "micro_batches": 1},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", MODELS)
def test_without_staleness_it_is_the_plain_loop(name: str, way: str) -> None:
    model, cut = MODELS[name]
    cuts = {"cuts": [cut]} if way != "one stage" else {}
    check_same(trained(build(model), **WAYS[way], **cuts), plain(build(model)))


def test_it_is_another_loop_than_that_in_float32() -> None:
    _, lower = trained(build(layers), method="sgd")
    _, usual = trained(build(layers), method="sgd", precision=None)
    assert lower != usual
    assert lower == pytest.approx(usual, abs=0.05)


@pytest.mark.parametrize("m", [1, 2, 4])
def test_with_staleness_it_is_the_plain_loop_of_two_stages(m: int) -> None:
    model = build(layers)
    assert isinstance(model, nn.Sequential)
    found = trained(build(layers), method="pipedream", stages=2, cuts=["4"], staleness=[m, 0])
    check_same(found, late(model, 4, m))


@pytest.mark.parametrize("engine", ["simulator", "processes"])
@pytest.mark.parametrize("view", [view for view in VIEWS if view != "double-buffered"])
def test_every_view_is_the_plain_loop_where_nothing_is_late(view: str, engine: str) -> None:
    found = trained(build(layers), method="pipedream", stages=2, cuts=["4"], staleness=[0, 0], view=view, engine=engine)
    check_same(found, plain(build(layers)))


ANEW = ("fdg", "fdg-forward-first", "adl", "paci", "pipemare", "pipeoptim", "spectrain")
EXACT = [name for name in OWN if name not in ANEW]


@pytest.mark.parametrize("name", EXACT)
@pytest.mark.parametrize("stages", [2, 3])
def test_methods_whose_backwards_are_exact_are_their_loops_under_autocast(name: str, stages: int) -> None:
    task = make_task(**({"optimizer": OPTIMIZERS[name]} if name in OPTIMIZERS else {}))
    settings = make_settings(1, stages, method=name, **BF16)
    compare(run_simulator(task, settings), run_reference(task, settings))


@pytest.mark.parametrize(
    "settings",
    [
        make_settings(2, 3, **BF16),
        make_settings(3, 2, lag=1, period=2, mixing="adapt-then-combine", **BF16),
        make_settings(2, 2, method="gpipe", micro_batches=2, **BF16),
        make_settings(3, 1, method="data-parallel", **BF16),
    ],
    ids=["grid", "lag", "gpipe", "data-parallel"],
)
def test_grids_are_their_loops_under_autocast(settings: Settings) -> None:
    compare(run_simulator(make_task(), settings), run_reference(make_task(), settings))


class _Product(torch.autograd.Function):
    """A layer in bfloat16 that reads its weight again in the backward, whatever it then is."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w: Tensor, b: Tensor) -> Tensor:
        ctx.w, ctx.x, ctx.kind = w, x.bfloat16(), x.dtype
        return torch.addmm(b.bfloat16(), ctx.x, w.bfloat16().t())

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        weight = (ctx.x.t() @ g).t()
        return (g @ ctx.w.bfloat16()).to(ctx.kind), weight.float(), g.sum(0).float()


class Rereading(nn.Linear):
    """The layer of torch under autocast, as the loops of methods want it that write weights under a graph."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the product."""
        return _Product.apply(x, self.weight, self.bias)  # type: ignore[no-any-return]


def mlp(layer: type[nn.Linear] = nn.Linear) -> nn.Sequential:
    found = build(lambda: nn.Sequential(*(f() for f in (nn.Flatten, *_three(layer)))))
    assert isinstance(found, nn.Sequential)
    return found


def _three(layer: type[nn.Linear]) -> list[Callable[[], nn.Module]]:
    return [
        partial(layer, 72, 16),
        nn.Tanh,
        partial(layer, 16, 16),
        partial(nn.LayerNorm, 16),
        nn.Tanh,
        partial(layer, 16, 3),
    ]


def test_the_layer_that_reads_its_weight_again_is_that_of_torch() -> None:
    """So are the loops, then, those of the layers of torch under autocast."""
    batches, model = data(), mlp(Rereading)
    expected, step = plain(mlp()), sgd(model.parameters())
    losses = []
    for n in range(UPDATES):
        loss = _cross_entropy(model(*batches.inputs(0, n)), batches.targets(0, n))
        loss.backward()
        step.step()
        step.zero_grad()
        losses.append(float(loss.detach()))
    check_same((model, losses), expected)


def _cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    with AMP():
        return F.cross_entropy(outputs, targets)


LATE: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "current": ({"method": "fdg"}, partial(fdg, m=(3, 1, 0), beta=0.5)),
    "current, micro-batches": ({"method": "paci", "micro_batches": 2}, partial(paci, m=(2, 1, 0), M=2)),
    "current in a grid": (
        {"method": "pham-ahn", "view": "current", "staleness": [4, 2, 0]},
        partial(grid, S=1, m=(4, 2, 0), view="current"),
    ),
    "corrected": ({"method": "pipemare"}, partial(pipemare, m=(2, 1, 0), anneal=2.0)),
    "predicted": ({"method": "pipeoptim"}, partial(pipeoptim, m=(2, 1, 0))),
    "predicted-twice": ({"method": "spectrain"}, partial(spectrain, m=(2, 1, 0))),
}


@pytest.mark.parametrize("name", LATE)
def test_views_that_show_other_weights_show_casts_of_them(name: str) -> None:
    options, loop = LATE[name]
    settings = make_settings(1, 3, cuts=["3", "6"], batch_size=BATCH, **options, **BF16)
    task = make_task(model=mlp(), scheduler=None)
    plan = make_plan(task, settings)
    assert plan_has_casts(plan)
    assert plain_loop(task, plan, CPU) is None, "it would show the casts of the forward"
    stages = mlp(Rereading)
    groups = name == "current in a grid"
    batches = Batches(images(), groups=1, batch_size=BATCH, micro_batches=plan.schedule.micro_batches, seed=3)
    arguments: dict[str, Any] = {
        "N": plan.updates,
        "loss": _cross_entropy,
        "optimizer": lambda named: task.optimizer([p for _, p in named]),  # type: ignore[call-arg,arg-type]
        "inputs": batches.inputs if groups else partial(batches.inputs, 0),
        "targets": batches.targets if groups else partial(batches.targets, 0),
        "drawing": lambda *key: torch.random.fork_rng(devices=[]),
    }
    parts = [_Named(stages, range(3)), _Named(stages, range(3, 6)), _Named(stages, range(6, 7))]
    modules, losses = loop(parts, **arguments)
    made = outcome_of((modules, losses) if groups else ([modules], [losses]))
    found = record_simulator(task, settings)
    assert [record["group_loss"] for record in found.records] == made.losses
    assert found.values[-1].keys() == made.parameters.keys()
    for key, value in found.values[-1].items():
        assert torch.equal(value, made.parameters[key]), key


def plan_has_casts(plan: Any) -> bool:
    return any(plan.view.casts_anew(plan.schedule, k) for k in range(3))


class _Named(nn.Sequential):
    """Some layers under the names that they have in the whole."""

    def __init__(self, whole: nn.Sequential, numbers: range) -> None:
        super().__init__()
        for number in numbers:
            self.add_module(str(number), whole[number])


@pytest.mark.parametrize("view", VIEWS)
def test_processes_compute_what_the_simulator_does(view: str) -> None:
    micro = {"staleness": [2, 1, 0], "micro_batches": 2} if view == "double-buffered" else {}
    options = {"method": "pham-ahn", "groups": 1, "stages": 3, "cuts": CUTS[3], "view": view, **micro}
    one, other = (trained(build(Net), engine=engine, **options) for engine in ("simulator", "processes"))
    check_same(other, one)


@pytest.mark.thorough
@pytest.mark.parametrize("view", VIEWS)
def test_a_run_goes_on_to_the_bit(view: str, tmp_path: Path) -> None:
    micro = {"staleness": [2, 1, 0], "micro_batches": 2} if view == "double-buffered" else {"staleness": [4, 2, 0]}
    options = {**grid_of("pham-ahn"), "view": view, **micro, **BF16}
    whole = train_saved(tmp_path / "run", **options)
    check_resumed(whole, 10, **options)


def test_a_run_does_not_go_on_in_another_precision(tmp_path: Path) -> None:
    train_saved(tmp_path / "run", **grid_of("pipedream"), **BF16)
    with pytest.raises(stalegrid.ConfigError, match=r"training.precision: "):
        train_saved(tmp_path / "run", **grid_of("pipedream"), resume=tmp_path / "run" / FOLDER / "000000010")


@pytest.mark.parametrize("stages", [2, 3, 4])
@pytest.mark.parametrize("thrice", [False, True])
def test_tied_weights_are_cast_for_each_use(stages: int, thrice: bool) -> None:
    """As in a plain loop without autocast's cache, which adds their gradients in bfloat16."""
    task = make_task(model=tied.writer(thrice), data=tied.sentences(), scheduler=None)
    settings = make_settings(1, stages, method="1f1b", micro_batches=1, cuts=tied.CUTS[stages], **BF16)
    whole = make_settings(1, 1, method="sgd", **BF16)
    one, other = run_simulator(task, settings), run_simulator(task, whole)
    assert one.losses == other.losses
    assert all(torch.equal(value, other.mean[name]) for name, value in one.mean.items())
    model, losses = tied.writer(thrice), []
    batches = Batches(tied.sentences(), groups=1, batch_size=4, seed=3)
    step = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    for n in range(UPDATES):
        with AMP(cache_enabled=False):
            loss = F.cross_entropy(model(*batches.inputs(0, n)), batches.targets(0, n))
        loss.backward()
        step.step()
        step.zero_grad()
        losses.append([float(loss.detach())])
    assert losses == other.losses


def test_messages_are_of_the_type_that_crosses() -> None:
    """After a layer that is bfloat16; after one that autocast leaves as it is, it is the parameters' type."""
    for model, cut, dtype in ((layers, "2", torch.bfloat16), (Own, "outer", torch.float32)):
        plan = make_plan(make_task(model=build(model)), make_settings(1, 2, cuts=[cut], **BF16))
        (spec,) = plan.partition.layouts[0]
        assert spec.dtype == dtype
        sent = [tag.edge for k in range(2) for a in plan.program.actions(Unit(0, k)) for tag in a.sends]
        layouts = {edge.name: plan.layout(edge)[0].dtype for edge in sent if edge.name in ("activation", "gradient")}
        assert layouts == {"activation": dtype, "gradient": dtype}


def test_what_crosses_on_the_device_of_the_training_is_held_against_the_plan_under_autocast() -> None:
    """There the CPU stands for it: without autocast, float32 would cross."""
    task, settings = make_task(model=build(layers)), make_settings(1, 2, cuts=["2"], **BF16)
    plan = make_plan(task, settings)
    _check_on(CPU, task, settings, plan)
    with pytest.raises(stalegrid.ConfigError, match=r"other types cross the cut at 2 \(found: \[torch.float32\]"):
        _check_on(CPU, task, changed(settings, precision=None), plan)


def test_the_test_data_is_measured_under_autocast() -> None:
    test = images(13)
    result = stalegrid.train(
        build(layers),
        images(),
        loss=nn.CrossEntropyLoss(),
        optimizer=sgd,
        test=test,
        method="pipedream",
        stages=2,
        batch_size=BATCH,
        updates=UPDATES,
        metrics={"half": lambda outputs, targets: float(outputs.dtype == torch.bfloat16)},
        engine="simulator",
        quiet=True,
        precision="bf16",
    )
    model = result.model.eval()
    with torch.no_grad(), AMP():
        x, y = test.tensors
        expected = float(F.cross_entropy(model(x), y))
    with torch.no_grad():
        assert float(F.cross_entropy(model(x), y)) != expected
    assert result.summary["test_loss"] == pytest.approx(expected, rel=1e-7)  # the mean is times samples, over samples
    assert result.summary["test_half"] == 1.0


@pytest.mark.parametrize("method", ["hardsync", "softsync"])
def test_learners_compute_under_autocast(method: str) -> None:
    task = make_task(scheduler=None)
    settings = flat(Settings, method=method, learners=3, batch_size=4, updates=UPDATES, seed=3, **BF16)
    found = verify(task, settings)
    assert [difference.name for difference in found] == ["processes", LOOPS]
    assert all(difference.equal for difference in found), found


@pytest.mark.parametrize(
    ("model", "changes", "said"),
    [
        (layers, {"dtype": "float64"}, r"precision: bf16, parameter: 1.weight, type: torch.float64"),
        (layers, {"dtype": "bfloat16"}, r"precision: bf16, parameter: 1.weight, type: torch.bfloat16"),
        (lambda: layers().double(), {}, r"type: torch.float64.*leave precision out"),
    ],
)
@pytest.mark.parametrize("method", ["pipedream", "softsync"])
def test_parameters_of_another_type_are_refused(
    model: Callable[[], nn.Module], changes: dict[str, Any], said: str, method: str
) -> None:
    with pytest.raises(stalegrid.ConfigError, match=said):
        trained(build(model), method=method, **changes)
