"""Stages that measure and save the model themselves, held against the observer that has the whole of it."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.errors import ConfigError, DataError, NonFiniteLoss
from stalegrid.observe.parts import INDEX, UNSAVED_INDEX
from stalegrid.plans.membership import LostGroup, Membership
from stalegrid.plans.task import Task
from stalegrid.report import read_model
from stalegrid.runs import execute
from tests.cases import flat

pytestmark = pytest.mark.thorough

WORDS = 11
REAL = ("seconds", "samples_per_second", "evaluation", "shares")


class Odd(nn.Module):
    """What makes a model another list of operations in evaluation mode, and parts of it that few models have."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(WORDS, 8)
        self.first = nn.Linear(8, 8)
        self.bounded = nn.utils.parametrizations.spectral_norm(nn.Linear(8, 8))
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.norm = nn.BatchNorm1d(4)
        self.last = nn.Linear(8, 8)
        self.out = nn.Linear(8, WORDS, bias=False)
        self.out.weight = self.words.weight
        self.unused = nn.Linear(2, 2)
        self.register_buffer("scale", torch.full((8,), 1.5), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        h = nn.functional.dropout(self.words(x), 0.2, self.training)
        h = torch.relu(self.first(h))
        if self.training:
            h = h + 0.01 * torch.randn_like(h)
        h = self.norm(self.frozen(self.bounded(h) * self.scale))
        return self.out(torch.relu(self.last(h))).flatten(0, 1)


def cross_entropy(outputs: Tensor, targets: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, targets.flatten())


def mean_output(outputs: Tensor, targets: Tensor) -> float:
    return float(outputs.float().mean())


def data(samples: int) -> TensorDataset:
    x = torch.randint(0, WORDS, (samples, 5), generator=torch.Generator().manual_seed(1))
    return TensorDataset(x[:, :-1], x[:, 1:])


def task(model: nn.Module | None = None, **changes: Any) -> Task:
    given: dict[str, Any] = {
        "model": Odd() if model is None else model,
        "data": data(40),
        "loss": cross_entropy,
        "optimizer": partial(torch.optim.AdamW, lr=0.02),
        "test": data(13),
        "metrics": {"mean_output": mean_output},
    }
    return Task(**given | changes)


CUTS = {1: [], 2: ["norm"], 3: ["bounded", "last"]}


def settings(folder: Path, evaluation: str, groups: int = 1, stages: int = 2, **changes: Any) -> stalegrid.Settings:
    given: dict[str, Any] = {
        "folder": folder,
        "evaluation": evaluation,
        "groups": groups,
        "stages": stages,
        "cuts": CUTS[stages],
        "batch_size": 4,
        "test_batch_size": 2,
        "updates": 7,
        "evaluate_every": 0.3,
        "log_every": 2,
        "loggers": [],
        "engine": "simulator",
    }
    return flat(stalegrid.Settings, **given | changes)


def told(folder: Path) -> list[dict[str, Any]]:
    """Return all that a run tells, but for real time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = [*lines, json.loads((folder / "summary.json").read_text())]
    return [{name: value for name, value in record.items() if name not in REAL} for record in found]


def check_alike(one: Path, other: Path) -> None:
    """Check that two runs have told and saved the same, whoever measured."""
    assert told(one) == told(other)
    for first, second in zip(read_model(one), read_model(other), strict=True):
        assert first.keys() == second.keys()
        for name, tensor in first.items():
            assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    ("groups", "stages", "changes"),
    [
        (1, 1, {}),
        (1, 2, {}),
        (1, 3, {"precision": "bf16"}),
        (2, 2, {}),
        (3, 3, {"period": 2, "lag": 1}),
        (3, 2, {"mixing": "push-sum", "topology": "0>1,1>2,2>0,0>2"}),
        (2, 2, {"mixing": "exact-diffusion"}),
        (2, 2, {"mixing": "gradient-tracking", "period": 2}),
        (2, 1, {"method": "data-parallel"}),
        (2, 2, {"batch_size": [4, 2]}),
        (1, 3, {"method": "dsp", "queues": [3, 2, 0]}),
        (2, 2, {"method": "gpipe", "micro_batches": 2}),
    ],
)
@pytest.mark.parametrize("engine", ["simulator", "processes"])
def test_stages_tell_and_save_what_the_observer_does(
    groups: int, stages: int, changes: Mapping[str, Any], engine: str, tmp_path: Path
) -> None:
    results = {}
    for evaluation in ("whole", "pipeline"):
        asked = settings(tmp_path / evaluation, evaluation, groups, stages, engine=engine, **changes)
        results[evaluation] = execute(task(), asked, quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "pipeline")
    assert len([one for one in told(tmp_path / "whole") if one.get("kind") == "test"]) > 1
    state = results["whole"].model.state_dict()
    assert all(torch.equal(state[n], t) for n, t in results["pipeline"].model.state_dict().items())


def test_without_test_data_stages_save_the_model(tmp_path: Path) -> None:
    for evaluation in ("whole", "pipeline"):
        execute(task(test=None, metrics={}), settings(tmp_path / evaluation, evaluation, 2), quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "pipeline")


def test_files_are_those_that_others_read(tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute(task(), settings(out, "pipeline", 1, 3), quiet=True)
    index = json.loads((out / INDEX).read_text())
    files = {path.name for path in out.glob("model-*.safetensors")}
    assert set(index["weight_map"].values()) == files
    state: dict[str, Tensor] = {}
    for name in files:
        with safe_open(out / name, framework="pt") as file:
            assert set(file.keys()) == {key for key, where in index["weight_map"].items() if where == name}
        state |= load_file(out / name)
    Odd().load_state_dict(state)
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in state.values())
    assert list(json.loads((out / UNSAVED_INDEX).read_text())["weight_map"]) == ["scale"]


@pytest.mark.filterwarnings("ignore")  # of what transformers thinks of its own calls
def test_transformers_reads_what_stages_have_saved(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers", reason="transformers is not installed")
    config = transformers.LlamaConfig(
        vocab_size=WORDS,
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        tie_word_embeddings=True,
    )
    tokens = torch.randint(0, WORDS, (8, 6), generator=torch.Generator().manual_seed(0))
    rows = [{"input_ids": row, "labels": row} for row in tokens]
    results = {}
    for evaluation in ("whole", "pipeline"):
        results[evaluation] = stalegrid.train(
            lambda: transformers.AutoModelForCausalLM.from_config(config),
            rows,
            loss=None,
            optimizer=partial(torch.optim.AdamW, lr=1e-3),
            test=rows,
            stages=2,
            cuts=["model.layers.1"],
            batch_size=4,
            updates=2,
            engine="simulator",
            out=tmp_path / evaluation,
            evaluation=evaluation,
            quiet=True,
        )
    assert results["whole"].summary["test_loss"] == results["pipeline"].summary["test_loss"]
    config.save_pretrained(tmp_path / "pipeline")
    found = transformers.LlamaForCausalLM.from_pretrained(tmp_path / "pipeline").state_dict()
    assert all(torch.equal(found[name], value) for name, value in results["whole"].model.state_dict().items())


def test_a_run_that_goes_on_tells_and_saves_the_same(tmp_path: Path) -> None:
    whole, part = tmp_path / "whole", tmp_path / "part"
    checkpoint = stalegrid.CheckpointSettings(every=2, keep=9)
    asked = replace(settings(whole, "pipeline", 2), checkpoint=checkpoint)
    execute(task(), asked, quiet=True)
    shutil.copytree(whole, part)
    saves = sorted(path for path in (part / "checkpoints").iterdir() if path.is_dir())
    execute(task(), replace(asked, output=replace(asked.output, folder=part)), resume=saves[1], quiet=True)
    check_alike(whole, part)


class Enough(stalegrid.Callback):
    """Asks for the end at the first evaluation."""

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> bool:
        return True


class Bare(stalegrid.Callback):
    """Sees that the model has no values."""

    stops = False

    def on_evaluation(self, record: dict[str, Any], model: nn.Module) -> None:
        assert {p.device.type for p in model.parameters()} == {"meta"}


def test_a_run_that_a_callback_ends_ends_where_it_does(tmp_path: Path) -> None:
    for evaluation in ("whole", "pipeline"):
        asked = settings(tmp_path / evaluation, evaluation, 1, 3, updates=20)
        execute(task(), asked, callbacks=[Enough()], quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "pipeline")
    assert told(tmp_path / "whole")[-1]["version"] < 20


def test_callbacks_get_a_model_without_values(tmp_path: Path) -> None:
    execute(task(), settings(tmp_path / "out", "pipeline"), callbacks=[Bare()], quiet=True)


@pytest.mark.parametrize("groups", [2, 3])
def test_the_first_group_that_is_there_measures(groups: int, tmp_path: Path) -> None:
    lost = Membership((LostGroup(0, 4, "gone"),), ())
    for evaluation in ("whole", "pipeline"):
        out = tmp_path / evaluation
        asked = replace(settings(out, evaluation, groups), checkpoint=stalegrid.CheckpointSettings(every=2, keep=9))
        execute(task(), asked, quiet=True)
        (save,) = (path for path in (out / "checkpoints").iterdir() if path.is_dir() and "4" in path.name)
        execute(task(), asked, resume=save, membership=lost, quiet=True)
    check_alike(tmp_path / "whole", tmp_path / "pipeline")


def test_training_goes_on_as_if_nobody_had_measured(tmp_path: Path) -> None:
    for name, every in (("often", 0.1), ("last", 0.0)):
        execute(task(), settings(tmp_path / name, "pipeline", 3, evaluate_every=every), quiet=True)
    often, last = (read_model(tmp_path / name)[0] for name in ("often", "last"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in often.items())


class Counting(nn.Module):
    """Counts its forwards, those that measure too, in a buffer and in an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(8, 8)
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))
        self.seen = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen += 1
        return self.layer(x) * (1 + 1 / self.seen)


def test_what_a_measurement_leaves_in_a_module_is_put_back(tmp_path: Path) -> None:
    def model() -> nn.Module:
        torch.manual_seed(0)
        return nn.Sequential(nn.Embedding(WORDS, 8), Counting(), nn.Linear(8, WORDS), nn.Flatten(0, 1))

    for name, every in (("often", 0.1), ("last", 0.0)):
        asked = settings(tmp_path / name, "pipeline", 2, evaluate_every=every, cuts=["2"])
        execute(task(model()), asked, quiet=True)
    often, last = (read_model(tmp_path / name)[0] for name in ("often", "last"))
    assert all(torch.equal(tensor, last[name]) for name, tensor in often.items())
    assert often["1.calls"] > 6


def test_a_model_that_is_none_any_more_ends_the_run_as_it_does_whole(tmp_path: Path) -> None:
    bad = partial(torch.optim.SGD, lr=1e30)
    for evaluation in ("whole", "pipeline"):
        with pytest.raises(NonFiniteLoss):
            execute(task(optimizer=bad), settings(tmp_path / evaluation, evaluation, updates=20), quiet=True)


class Swapped(nn.Module):
    """Has its parts in another order in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, 8)
        self.a = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(4))
        self.b = nn.Linear(8, 8)
        self.out = nn.Linear(8, WORDS)

    def forward(self, x: Tensor) -> Tensor:
        h = self.words(x)
        h = self.b(self.a(h)) if self.training else self.a(self.b(h))
        return self.out(h).flatten(0, 1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"evaluation": "piepline"},
            r"output.evaluation must be one of auto, whole, shared, pipeline \(output.evaluation: 'piepline'\)",
        ),
        ({"evaluation": "pipeline", "folder": None}, "name a folder"),
        ({"evaluation": "pipeline", "best": "-test_loss"}, r"output.best: -test_loss.*evaluation: whole"),
        ({"evaluation": "pipeline", "method": "hardsync"}, "learners have the whole model"),
    ],
)
def test_what_cannot_be_measured_in_stages_is_refused(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def run() -> None:
        learners = {"folder": folder, "updates": 4, "batch_size": 4, "engine": "simulator"}
        if "method" in changes:
            execute(task(), flat(stalegrid.Settings, **learners, **changes), quiet=True)
        else:
            execute(task(), settings(**{"evaluation": "whole", "folder": folder} | changes), quiet=True)

    with pytest.raises(ConfigError, match=message):
        run()
    assert not folder.exists()


def test_a_model_of_another_order_in_evaluation_mode_is_refused(tmp_path: Path) -> None:
    asked = settings(tmp_path / "out", "pipeline", cuts=["b"])
    with pytest.raises(ConfigError, match=r"in evaluation mode.*evaluation: whole"):
        execute(task(Swapped()), asked, quiet=True)


def test_a_lost_file_is_named(tmp_path: Path) -> None:
    out = tmp_path / "out"
    execute(task(), settings(out, "pipeline"), quiet=True)
    lost = next(out.glob("model-*-stage-1-*.safetensors"))
    lost.unlink()
    with pytest.raises(DataError, match=lost.name):
        read_model(out)
