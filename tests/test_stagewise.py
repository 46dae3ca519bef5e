"""Models that are made stage by stage, where their stages are trained, train as whole ones do."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
import stalegrid.objects.thin as thin
from stalegrid.agents import build_agents
from stalegrid.cli import main
from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.models.gpt import GPT
from stalegrid.observe import Nowhere
from stalegrid.plans import Task, plan_of
from stalegrid.programs import OBSERVER, Unit
from stalegrid.report import read_model
from stalegrid.sources import Source, built
from stalegrid.studies.loops import plain_loop
from tests.cases import CPU, Net

pytestmark = pytest.mark.thorough

CUTS = {1: [], 2: ["blocks.1.expand"], 3: ["blocks.0.norm2", "norm"], 4: ["blocks.0", "blocks.1", "blocks.2"]}


def make() -> GPT:
    return GPT(23, 8, layers=3, width=16, heads=2)


def whole(factory: Callable[[], nn.Module] = make, seed: int = 0) -> nn.Module:
    return stalegrid.whole_model(factory, seed)


def data() -> TensorDataset:
    x = torch.randint(0, 23, (32, 8), generator=torch.Generator().manual_seed(0))
    return TensorDataset(x, x.roll(-1, 1))


def trained(model: Any, stages: int | None, **options: Any) -> stalegrid.Result:
    return stalegrid.train(
        model,
        data(),
        **{
            "loss": nn.CrossEntropyLoss(),
            "optimizer": lambda p: torch.optim.AdamW(p, lr=1e-2),
            "test": data(),
            "batch_size": 4,
            "updates": 6,
            "stages": stages,
            "cuts": CUTS.get(stages or 0),
            "quiet": True,
            "engine": "simulator",
            **options,
        },
    )


def same(one: stalegrid.Result, other: stalegrid.Result) -> bool:
    states = one.model.state_dict(), other.model.state_dict()
    assert states[0].keys() == states[1].keys()
    alike = all(torch.equal(a, states[1][name]) for name, a in states[0].items())
    return alike and one.summary["test_loss"] == other.summary["test_loss"]


@pytest.mark.parametrize(("stages", "thin_ones"), [(1, False), (2, True), (3, False), (3, True), (4, False)])
def test_a_stagewise_start_is_the_whole_one_to_the_bit(
    stages: int, thin_ones: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if thin_ones:
        monkeypatch.setattr(thin, "LEAST", 100)
    assert same(trained(whole(), stages), trained(make, stages))


def test_it_is_so_where_it_is_cut_by_itself() -> None:
    found = trained(make, 3, cuts=None)
    assert len(found.summary["cuts"]) == 2
    assert same(trained(whole(), 3, cuts=found.summary["cuts"]), found)


@pytest.mark.parametrize(("stages", "groups", "processes"), [(4, 1, 2), (3, 2, 6), (2, 2, 2)])
def test_it_is_so_in_any_number_of_processes(stages: int, groups: int, processes: int) -> None:
    options = {"groups": groups, "engine": "processes", "processes": processes}
    assert same(trained(whole(), stages, groups=groups), trained(make, stages, **options))


def test_other_seeds_begin_with_other_values() -> None:
    assert same(trained(whole(seed=5), 2, seed=5), trained(make, 2, seed=5))
    assert not torch.equal(whole(seed=5).positions, whole().positions)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["gpipe", "pipedream", "pipemare"])
def test_it_is_so_with_other_methods(method: str) -> None:
    options = {"method": method, "micro_batches": 2} if method == "gpipe" else {"method": method}
    assert same(trained(whole(), 3, **options), trained(make, 3, **options))


def test_a_model_for_images_with_buffers_is_cut_where_one_that_is_whole_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "LEAST", 50)
    x = torch.randn(16, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    images = TensorDataset(x, torch.arange(16) % 3)
    options = {"cuts": ["conv2", "dropout2"], "updates": 4, "test": images}

    def run(model: Any) -> stalegrid.Result:
        return stalegrid.train(
            model, images, loss=nn.CrossEntropyLoss(), optimizer=lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9),
            batch_size=4, stages=3, engine="simulator", quiet=True, **options
        )  # fmt: skip

    assert same(run(whole(Net)), run(Net))


def test_a_model_that_learns_its_own_loss_is_captured_and_trained() -> None:
    transformers = pytest.importorskip("transformers")
    config = transformers.LlamaConfig(
        hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
        vocab_size=23, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip

    def factory() -> nn.Module:
        made: nn.Module = transformers.AutoModelForCausalLM.from_config(config)
        return made

    rows = [{"input_ids": x, "attention_mask": torch.ones_like(x), "labels": x} for x, _ in data()]

    def run(model: Any) -> stalegrid.Result:
        return stalegrid.train(
            model, rows, optimizer=lambda p: torch.optim.AdamW(p, lr=1e-2), batch_size=4, stages=2, test=rows,
            cuts=["model.layers.1"], updates=3, engine="simulator", quiet=True,
        )  # fmt: skip

    assert same(run(whole(factory)), run(factory))


@dataclass
class Asked:
    """A source that notes what it is asked for."""

    source: Source
    names: list[str] = field(default_factory=list)

    def value(self, name: str) -> Tensor:
        self.names.append(name)
        return self.source.value(name)

    def text(self) -> str:
        return self.source.text()


def test_a_process_asks_for_the_values_of_its_own_stages_alone() -> None:
    made = built(make, 0)
    asked = Asked(made.source)
    task = Task(made.model, data(), nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, lr=0.1), source=asked)
    plan = plan_of(task, Settings.of({"stages": 4, "cuts": CUTS[4], "batch_size": 4, "updates": 2}))
    names = {
        0: {"tokens.weight", "positions"},
        1: {n for n, _ in made.model.named_parameters() if n.startswith("blocks.0.")},
        2: {n for n, _ in made.model.named_parameters() if n.startswith("blocks.1.")},
    }
    for stage, own in names.items():
        asked.names.clear()
        agents = build_agents(task, plan, [Unit(0, stage)], CPU, Nowhere())
        assert list(agents) == [Unit(0, stage)]
        assert set(asked.names) == own
        assert len(asked.names) == len(own)
    assert OBSERVER in plan.program.agents


def test_a_plan_tries_one_stage_after_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(thin, "LEAST", 100)
    made = built(make, 0)
    asked = Asked(made.source)
    task = Task(made.model, data(), nn.CrossEntropyLoss(), lambda p: torch.optim.AdamW(p, lr=0.1), source=asked)
    plan_of(task, Settings.of({"stages": 4, "cuts": CUTS[4], "batch_size": 4, "updates": 2}))
    large = [name for name in asked.names if name.endswith("expand.weight")]
    # Stage by stage: all trials of one come before the first of the next.
    assert large == sorted(large)
    assert len(set(large)) == 3


def test_a_run_goes_on_to_the_bit(tmp_path: Path) -> None:
    options = {"checkpoint": 2, "engine": "simulator"}
    trained(make, 3, out=tmp_path / "whole", **options)
    trained(make, 3, out=tmp_path / "run", **options)
    before = read_model(tmp_path / "run")[0]
    for path in (tmp_path / "run").glob("model*"):
        path.unlink()
    trained(make, 3, resume=tmp_path / "run" / "checkpoints" / "000000002", **options)
    for found in (before, read_model(tmp_path / "run")[0]):
        assert all(torch.equal(found[name], value) for name, value in read_model(tmp_path / "whole")[0].items())


def test_a_run_that_goes_on_with_other_frozen_values_is_refused(tmp_path: Path) -> None:
    def frozen() -> nn.Module:
        made = make()
        made.positions.requires_grad_(False)
        return made

    trained(frozen, 2, out=tmp_path / "run", checkpoint=2)
    with pytest.raises(ConfigError, match="positions"):
        trained(frozen, 2, resume=tmp_path / "run" / "checkpoints" / "000000002", checkpoint=2, seed=1)


def test_a_run_begins_with_an_exported_model(tmp_path: Path) -> None:
    model = whole(seed=9)
    stalegrid.save_exported(tmp_path / "model.safetensors", model, torch.optim.AdamW(model.parameters(), lr=1e-2))
    assert same(trained(model, 2), trained(make, 2, start_from=tmp_path / "model.safetensors"))


def test_files_are_read_stage_by_stage(tmp_path: Path) -> None:
    model = whole(seed=9)
    state = model.state_dict()
    state.pop("head.weight")
    save_file(state, tmp_path / "model.safetensors")
    expected = trained(model, 3)
    assert same(expected, trained(make, 3, weights=tmp_path))
    assert same(expected, trained(make, 3, weights=tmp_path, engine="processes"))


def test_files_of_several_parts_end_in_files_of_several_parts(tmp_path: Path) -> None:
    given, out = tmp_path / "given", tmp_path / "out"
    given.mkdir()
    model = whole(seed=9)
    state = {name: tensor for name, tensor in model.state_dict().items() if name != "head.weight"}
    names = list(state)
    where = {name: f"model-{n % 3 + 1:05}-of-00003.safetensors" for n, name in enumerate(names)}
    for file in set(where.values()):
        save_file({name: state[name] for name in names if where[name] == file}, given / file)
    (given / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": where}))
    trained(make, 4, weights=given, engine="processes", out=out)
    expected = trained(model, 4).model
    files = sorted(out.glob("model-*.safetensors"))
    assert {file.name.split("-")[3] for file in files} == {"0", "1", "2", "3"}
    found = make()
    found.load_state_dict({name: tensor for file in files for name, tensor in load_file(file).items()})
    assert all(torch.equal(found.state_dict()[name], value) for name, value in expected.state_dict().items())
    assert same(trained(make, 4, weights=out), trained(found, 4))


def test_learners_of_servers_make_the_whole() -> None:
    options = {"method": "hardsync", "learners": 2}
    assert same(trained(whole(), None, **options), trained(make, None, **options))


def test_a_plain_loop_begins_as_the_run_does() -> None:
    made = built(make, 0)
    task = Task(made.model, data(), nn.CrossEntropyLoss(), lambda p: torch.optim.SGD(p, lr=0.1), source=made.source)
    settings = Settings.of({"batch_size": 4, "updates": 3, "method": "sgd"})
    plan = plan_of(task, settings)
    loops = [plain_loop(one, plan, CPU) for one in (task, replace(task, model=whole(), source=None))]
    (_, losses), (_, expected) = (loop() for loop in loops if loop is not None)
    assert losses == expected


def test_files_for_a_model_that_is_whole_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"files are read into a model that is made without memory \(weights: "):
        trained(make(), 2, weights=tmp_path)


def test_a_step_that_depends_on_all_parameters_is_refused() -> None:
    class Clipping(torch.optim.SGD):
        def step(self, closure: Any = None) -> Any:
            torch.nn.utils.clip_grad_norm_([p for g in self.param_groups for p in g["params"]], 0.1)
            return super().step(closure)

    with pytest.raises(ConfigError, match="a step of the optimizer depends on all parameters"):
        trained(make, 2, optimizer=lambda p: Clipping(p, lr=0.1))


OWN = """
from torch import nn

def net(width=8):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.ReLU(), nn.Linear(width, 10))
"""


def test_the_command_line_makes_a_model_stagewise_and_reads_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    common = ["train", "--model", "own_nets:net", "--groups", "1", "--stages", "2", "--cuts", "3", "--updates", "3",
              "--engine", "simulator"]  # fmt: skip
    assert main([*common, "--model.stagewise", "true", "--out", str(tmp_path / "one")]) == 0
    settings = yaml.safe_load((tmp_path / "one" / "config.yaml").read_text())
    assert settings["model"]["stagewise"] is True
    assert settings["output"]["evaluation"] == "pipeline"
    first, _ = read_model(tmp_path / "one")
    again = [*common, "--model.weights", str(tmp_path / "one"), "--out", str(tmp_path / "two")]
    assert main([*again, "--optimizer.lr", "1e-30", "--optimizer.weight-decay", "0"]) == 0
    second, _ = read_model(tmp_path / "two")
    assert all(torch.equal(first[name], second[name]) for name in first)


SCRIPT = """
import os
import sys
from pathlib import Path
from tests.test_stagewise import make, trained

result = trained(make, 4, engine="processes", processes=None, out=sys.argv[1], evaluation=sys.argv[2])
found = "empty" if all(p.is_meta for p in result.model.parameters()) else "whole"
Path(os.environ["RANK"]).write_text(found)
"""


@pytest.mark.parametrize("evaluation", ["whole", "pipeline"])
def test_torchrun_processes_make_their_own_stages(evaluation: str, tmp_path: Path) -> None:
    script = tmp_path / "run.py"
    script.write_text(SCRIPT)
    root = str(Path(__file__).parent.parent)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(script)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": root}
    out = tmp_path / "out"
    made = subprocess.run(
        [*command, str(out), evaluation], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=200
    )
    assert made.returncode == 0, made.stderr
    whole_in_first = evaluation == "whole"
    said = [(tmp_path / rank).read_text() for rank in ("0", "1")]
    assert said == ["whole" if whole_in_first else "empty", "empty"]
    expected = trained(whole(), 4).model.state_dict()
    found, _ = read_model(out)
    assert all(torch.equal(found[name], value) for name, value in expected.items())
