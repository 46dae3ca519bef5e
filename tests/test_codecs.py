"""Messages that are coded: the same bits on every engine as in plain loops, at any moment at which a run goes on."""

import copy
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import stalegrid
from stalegrid.agents.coded import Coded
from stalegrid.data import Batches
from stalegrid.plans import make_batches
from stalegrid.programs import Edge, Unit
from stalegrid.seeds import drawing
from stalegrid.studies.reference.coded import Carried
from stalegrid.studies.verifying import compare as held
from stalegrid.studies.verifying import run_engine
from tests import test_tied
from tests.cases import (
    CPU,
    UPDATES,
    Net,
    build,
    changed,
    compare,
    hold_to_the_loop,
    images,
    make_plan,
    make_settings,
    make_task,
    record_simulator,
    run_simulator,
)
from tests.pairs import pairs
from tests.test_resumed_grids import check_resumed
from tests.test_resumed_grids import train as train_saved

ALL: dict[str, Any] = {"activation": "int8,feedback", "gradient": "topk=0.2,feedback", "parameters": "int8,feedback"}
CHOCO: dict[str, Any] = {"mixing": "choco,gamma=0.4", "parameters": "topk=0.1"}


def of(groups: int, stages: int, codecs: dict[str, Any]) -> dict[str, Any]:
    """Leave out codecs of edges that a grid has not."""
    none = {"activation", "gradient"} if stages == 1 else set()
    none |= {"parameters", "mixing"} if groups == 1 else set()
    return {name: value for name, value in codecs.items() if name not in none}


def hold(groups: int, stages: int, codecs: dict[str, Any], **changes: Any) -> None:
    hold_to_the_loop(make_task(), make_settings(groups, stages, **of(groups, stages, codecs), **changes))


@pytest.mark.parametrize(
    ("groups", "stages", "codecs", "changes"),
    [
        (1, 2, {"activation": "bf16", "gradient": "bf16"}, {}),
        (2, 3, ALL, {"lag": 1}),
        pytest.param(
            *(3, 2, ALL, {"mixing": "adapt-then-combine", "period": 2, "view": "current", "dtype": "float64"}),
            marks=pytest.mark.thorough,
        ),
        (3, 2, CHOCO | {"activation": "topk=0.3", "gradient": "int8"}, {}),
        (2, 1, CHOCO | {"parameters": "bf16"}, {"period": 2, "dtype": "float64"}),
    ],
)
def test_the_simulator_has_the_bits_of_a_plain_loop(
    groups: int, stages: int, codecs: dict[str, Any], changes: dict[str, Any]
) -> None:
    hold(groups, stages, codecs, **changes)


GRIDS = [(s, k) for s, k in product((1, 2, 3), (1, 2, 3)) if s * k > 1]
KINDS = ["none", "bf16", "int8", "int8,feedback", "topk=0.1", "topk=0.1,feedback"]


@pytest.mark.thorough
@pytest.mark.parametrize(("grid", "dtype", "turn"), pairs(GRIDS, ("float32", "float64"), range(6)))
def test_any_codec_on_any_grid(grid: tuple[int, int], dtype: str, turn: int) -> None:
    groups, stages = grid
    codecs = {"activation": KINDS[turn], "gradient": KINDS[(turn + stages) % 6]}
    if turn % 2:
        codecs |= {"mixing": f"choco,gamma=0.{turn + 2}", "parameters": ["none", "bf16", "int8", "topk=0.2"][turn % 4]}
    else:
        codecs |= {"parameters": KINDS[turn % 4]}
    view = ["stashed", "current"][(turn + groups) % 2]
    hold(groups, stages, codecs, dtype=dtype, view=view, period=1 + turn % 2)


@pytest.mark.parametrize(
    "codecs", [ALL | CHOCO, pytest.param(ALL, marks=pytest.mark.thorough)], ids=["choco", "averaging"]
)
def test_processes_have_the_bits_of_the_simulator(codecs: dict[str, Any]) -> None:
    task, settings = make_task(), make_settings(2, 2, processes=2, **codecs)
    plan = make_plan(task, settings)
    settings = plan.settled(settings)
    difference = held(
        "", run_engine(task, changed(settings, engine="simulator"), plan), run_engine(task, settings, plan)
    )
    assert difference.equal, difference


@pytest.mark.parametrize(
    "codecs",
    [
        {"activation": "topk=1", "gradient": "topk=1,feedback"},
        pytest.param({"activation": "topk=1,feedback", "gradient": "topk=1"}, marks=pytest.mark.thorough),
        {"gradient": "topk=1", "mixing": "all-reduce", "all_reduce": "topk=1"},
    ],
    ids=str,
)
def test_a_codec_of_no_loss_changes_no_bit(codecs: dict[str, str]) -> None:
    lossy = ("activation", "gradient", "all_reduce")
    plain = {name: value for name, value in codecs.items() if name not in lossy}
    coded = run_simulator(make_task(), make_settings(2, 3, **codecs))
    compare(coded, run_simulator(make_task(), make_settings(2, 3, **plain)))


SENT_WHOLE = {"activation": "topk=1", "gradient": "topk=1,feedback"}


@pytest.mark.parametrize(
    ("groups", "changes"),
    [(1, {"method": "pipedream"}), (2, {"method": "pham-ahn", "mixing": "all-reduce", "all_reduce": "topk=1"})],
)
def test_nothing_is_lost_of_ties_sums_and_targets(groups: int, changes: dict[str, Any]) -> None:
    task = partial(test_tied.task_of, True, loss=test_tied.counted)
    settings = test_tied.settings_of(3, groups, batch_size=8, micro_batches=2, targets="travel", **changes)
    coded = changed(settings, **SENT_WHOLE)
    found = run_simulator(task(), coded)
    plan = make_plan(task(), coded)
    assert plan.program.ties.each
    assert plan.sums
    compare(found, run_simulator(task(), changed(settings, all_reduce="none")))


@pytest.mark.thorough
@pytest.mark.parametrize("groups", [1, 2])
def test_a_tie_beside_coded_messages_has_the_same_bits_in_processes(groups: int) -> None:
    codecs = {"activation": "int8,feedback", "gradient": "topk=0.3,feedback"}
    task, settings = test_tied.task_of(True), test_tied.settings_of(3, groups, processes=3, **codecs)
    plan = make_plan(task, settings)
    simulated = run_engine(task, changed(settings, engine="simulator"), plan)
    difference = held("", simulated, run_engine(task, plan.settled(settings), plan))
    assert difference.equal, difference


def test_below_what_is_trained_there_is_no_gradient_to_code() -> None:
    model = build(Net)
    assert isinstance(model, Net)
    model.conv1.requires_grad_(False)
    settings = make_settings(1, 3, cuts=["norm1", "conv2"], gradient="int8")
    plan = make_plan(make_task(model=model), settings)
    assert plan.program.frozen == 1
    assert plan.messages.coding(Edge("gradient", Unit(0, 1), Unit(0, 0))) is None
    hold_to_the_loop(make_task(model=model), settings)


def test_bf16_of_bfloat16_changes_no_bit() -> None:
    coded = {"activation": "bf16", "gradient": "bf16,feedback", "parameters": "bf16"}
    found = [run_simulator(make_task(), make_settings(2, 2, dtype="bfloat16", **c)) for c in (coded, {})]
    compare(*found)


def test_choco_without_a_loss_and_gamma_1_is_adapt_then_combine() -> None:
    # To rounding: what is known of a group is the sum of what it has sent, and not what it has.
    one, other = (
        run_simulator(make_task(), make_settings(3, 2, mixing=mixing, dtype="float64"))
        for mixing in ("choco", "adapt-then-combine")
    )
    names = {name for name, _ in Net().named_parameters()}
    for key, value in one.parameters.items():
        if key[1] in names:
            torch.testing.assert_close(value, other.parameters[key], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("codec", ["bf16", "int8,feedback", "topk=0.3,feedback"])
@pytest.mark.parametrize("groups", [2, pytest.param(3, marks=pytest.mark.thorough)])
def test_all_reduce_by_hand(groups: int, codec: str) -> None:
    settings = make_settings(groups, 1, mixing="all-reduce", method="data-parallel", all_reduce=codec)
    task = make_task()
    found = record_simulator(task, settings)
    values = found.values[-1]
    for s in range(1, groups):  # replicas never part
        for name in {name for _, name in values if not name.endswith(("mean", "var"))}:
            assert torch.equal(values[s, name], values[0, name])
    model, losses = by_hand(groups, codec, make_batches(task, settings.training, groups, 1))
    assert [record["group_loss"] for record in found.records] == losses
    for name, p in model.named_parameters():
        assert torch.equal(values[0, name], p), name


def by_hand(groups: int, codec: str, samples: Batches) -> tuple[nn.Module, list[list[float]]]:
    """Average parts of gradients over groups that send them with a loss, each part by the group that owns it."""
    models = [build(Net) for _ in range(groups)]
    carried = Carried({"all_reduce": codec})
    steps = [make_task().optimizer_of(list(m.named_parameters())) for m in models]
    rates = [partial(torch.optim.lr_scheduler.OneCycleLR, max_lr=0.1, total_steps=UPDATES)(o) for o in steps]
    losses = []
    for n in range(UPDATES):
        gradients, found = [], []
        for s, model in enumerate(models):
            with drawing(CPU, 3, "forward", s, 0, n):
                loss = nn.functional.cross_entropy(model(*samples.inputs(s, n)), samples.targets(s, n))
            loss.backward()
            gradients.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
            found.append(loss.item())
        losses.append(found)
        total, flags = len(gradients[0]), len(list(models[0].parameters()))
        parts = [part[part < total] for part in torch.arange(total + flags).tensor_split(groups)]
        mean = torch.empty_like(gradients[0])
        for r, part in enumerate(parts):
            whole = torch.zeros(len(part))
            for s, g in enumerate(gradients):
                whole = whole + (g[part] if s == r else arrived(carried, (s, r), g[part]))
            mean[part] = arrived(carried, r, whole / groups)
        for model, step, rate in zip(models, steps, rates, strict=True):
            for p, g in zip(model.parameters(), mean.split([p.numel() for p in model.parameters()]), strict=True):
                p.grad = g.view(p.shape).clone()
            step.step()
            step.zero_grad()
            rate.step()
    return models[0], losses


def arrived(carried: Carried, edge: object, sent: Tensor) -> Tensor:
    (made,) = carried.tensors("all_reduce", edge, [sent])
    assert made is not None
    return made


@pytest.mark.parametrize("method", ["gpipe", "1f1b"])
def test_a_flush_with_micro_batches_by_hand(method: str) -> None:
    micro, codecs = 2, {"activation": "int8,feedback", "gradient": "topk=0.3,feedback"}
    settings = make_settings(1, 2, method=method, micro_batches=micro, batch_size=4, **codecs)
    task = make_task(scheduler=None)
    plan = make_plan(task, settings)
    found = run_simulator(task, settings, plan)
    samples = make_batches(task, settings.training, 1, micro)
    below, above = (copy.deepcopy(stage) for stage in plan.partition.stages(task.model))
    steps = [task.optimizer_of(list(f.named_parameters())) for f in (below, above)]
    carried = Carried(codecs)
    for n in range(UPDATES):
        for b in range(n * micro, (n + 1) * micro):
            with drawing(CPU, 3, "forward", 0, 0, b):
                made = below(*samples.inputs(0, b))
            made = made if isinstance(made, tuple) else (made,)
            sent = [t for t in carried.tensors("activation", 0, made) if t is not None]
            inputs = [t.detach().requires_grad_() for t in sent]
            with drawing(CPU, 3, "forward", 0, 1, b):
                loss = nn.functional.cross_entropy(above(*inputs), samples.targets(0, b))
            loss.backward(torch.tensor(1.0 / micro))
            torch.autograd.backward(made, carried.tensors("gradient", 0, [t.grad for t in inputs]))
        for step in steps:
            step.step()
            step.zero_grad()
    for f in (below, above):
        for name, p in f.named_parameters():
            assert torch.equal(found.parameters[0, name], p), name


RUNS: dict[str, dict[str, Any]] = {
    "a deep pipeline": {
        "stages": 3,
        "staleness": [4, 2, 0],
        "codec": {"activation": "int8,feedback", "gradient": "topk=0.2,feedback"},
    },
    "two forwards": {"stages": 3, "view": "recomputed", "codec": {"activation": "topk=0.3,feedback"}},
    "neighbours of before": {
        "groups": 2,
        "mixing": stalegrid.MixingSettings(kind="adapt-then-combine", period=2, lag=3),
        "codec": {"parameters": "int8,feedback"},
    },
    "choco": {"groups": 3, "mixing": "choco,gamma=0.4", "codec": {"parameters": "topk=0.1", "activation": "bf16"}},
    "all-reduce": {"groups": 2, "mixing": "all-reduce", "codec": {"all_reduce": "int8,feedback"}},
    "micro-batches": {"staleness": [5, 1], "micro_batches": 2, "codec": {"gradient": "int8,feedback"}},
}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=() if n == "a deep pipeline" else pytest.mark.thorough) for n in RUNS]
)
def test_a_run_goes_on_to_the_bit(name: str, tmp_path: Path) -> None:
    options = {"method": "pham-ahn", "groups": 1, "stages": 2, **RUNS[name]}
    options["cuts"] = ["conv2", "dropout2"][: options["stages"] - 1]
    options["codec"] = stalegrid.CodecSettings(**options["codec"])
    whole = train_saved(tmp_path / "run", **options)
    assert whole.folder is not None
    check_resumed(whole, 10, **options)


@pytest.mark.thorough
def test_a_run_that_forgets_what_was_not_sent_would_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The control of the test above: that state matters."""
    options = {"method": "pham-ahn", "groups": 1, "stages": 2, "cuts": ["conv2"]}
    options["codec"] = stalegrid.CodecSettings(gradient="topk=0.2,feedback")
    whole = train_saved(tmp_path / "run", **options)
    monkeypatch.setattr(Coded, "state_dict", lambda self: self.agent.state_dict())
    monkeypatch.setattr(Coded, "load_state_dict", lambda self, state: self.agent.load_state_dict(state))
    saved = train_saved(tmp_path / "other", **options)
    with pytest.raises(AssertionError):
        check_resumed(saved, 10, **options)
    assert whole.summary["updates"] == saved.summary["updates"]


def test_what_was_chosen_is_written_down(tmp_path: Path) -> None:
    result = stalegrid.train(
        build(Net),
        images(),
        loss=nn.CrossEntropyLoss(),
        optimizer=partial(torch.optim.SGD, lr=0.1),
        codec=stalegrid.CodecSettings(activation="int8"),
        method="dsp",
        stages=2,
        cuts=["conv2"],
        batch_size=4,
        updates=3,
        engine="simulator",
        out=tmp_path / "run",
        quiet=True,
    )
    assert result.summary["codecs"] == {"activation": "int8"}
    assert "int8" in (tmp_path / "run" / "config.yaml").read_text()
