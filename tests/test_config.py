"""Settings: groups that check themselves, what stands for them, and how they are written down and read back."""

from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import networkx as nx
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.utils.data import TensorDataset

import stalegrid
from stalegrid.config import ALWAYS, SHORT, Settings, option_of
from stalegrid.consensus.settings import MixingSettings
from stalegrid.data import opened
from stalegrid.engines.settings import EngineSettings
from stalegrid.errors import ConfigError
from stalegrid.methods.published import METHODS
from stalegrid.methods.settings import MethodSettings
from stalegrid.plans.make import plan_of
from stalegrid.programs.settings import GridSettings, ServerSettings
from stalegrid.recipes.settings import RunConfig
from stalegrid.recipes.task import make_task
from stalegrid.runs import execute
from stalegrid.stages.corrections.named import Correction, Update
from stalegrid.stages.views.stashed import Stashed
from stalegrid.written.groups import groups_of, hints_of

GROUPS = groups_of(RunConfig)
PATHS = {f"{group}.{field}": hint for group, kind in GROUPS.items() for field, hint in hints_of(kind).items()}


def words(hint: Any) -> tuple[str, ...]:
    parts = [hint] if get_origin(hint) is Literal else [part for part in get_args(hint) if part is not type(None)]
    choice = all(get_origin(part) is Literal for part in parts)  # staleness may be a word, or a list
    return tuple(word for part in parts for word in get_args(part)) if choice else ()


CHOICES = {path: words(hint) for path, hint in PATHS.items() if words(hint)}


def config(path: str, value: Any) -> RunConfig:
    """Return a configuration with one field given."""
    group, _, field = path.partition(".")
    return RunConfig.of({group: {field: value}})


def at(settings: Settings, path: str) -> Any:
    group, _, field = path.partition(".")
    return getattr(getattr(settings, group), field)


def test_the_fields_that_are_choices() -> None:
    assert set(CHOICES) == {
        "grid.tied",
        "engine.kind",
        "engine.device",
        "engine.on_loss",
        "training.dtype",
        "training.precision",
        "training.targets",
        "servers.momentum_at",
        "output.evaluation",
        "method.reduction",
        "mixing.lag_rule",
    }


@pytest.mark.parametrize("path", CHOICES)
def test_a_choice_is_one_of_its_words(path: str) -> None:
    for word in CHOICES[path]:
        assert at(config(path, word), path) == word
    for wrong in ("other", CHOICES[path][0].upper(), 3):
        with pytest.raises(ConfigError, match=f"{path} must be one of {', '.join(CHOICES[path])}"):
            config(path, wrong)


NAMED = {"model": "mlp", "data": "digits", "loss": "cross-entropy", "optimizer": "adam", "schedule": "cosine"}
"""What is trained is named, by us or by the path of a factory."""


@pytest.mark.parametrize("group", NAMED)
def test_a_name_is_one_that_there_is(group: str) -> None:
    make_task(RunConfig.of({group: NAMED[group]}))
    for wrong in ("other", NAMED[group].upper()):
        with pytest.raises(ConfigError, match=rf"unknown {group}.*'{wrong}'"):
            make_task(RunConfig.of({group: wrong}))
    with pytest.raises(ConfigError, match=rf"{group}.name must be text.* \({group}.name: 3\)"):
        RunConfig.of({group: 3})


def test_what_may_be_left_out_is_left_out() -> None:
    config = RunConfig()
    fields = {
        "optimizer": ("name", "lr", "momentum", "weight_decay"),
        "method": ("view", "corrections", "rule", "clip", "queues", "staleness"),
        "training": ("dtype", "precision", "epochs", "targets"),
        "mixing": ("kind", "topology", "period", "lag", "lag_rule", "sparse", "fragments"),
        "schedule": ("milestones",),
    }
    assert all(getattr(getattr(config, group), name) is None for group, names in fields.items() for name in names)


LEFT_OUT = ("training.dtype", "training.precision", "training.targets", "method.reduction", "mixing.lag_rule")


@pytest.mark.parametrize(
    "path",
    [path for path in CHOICES if path not in LEFT_OUT],
)
def test_none_is_no_choice_unless_it_may_be_left_out(path: str) -> None:
    with pytest.raises(ConfigError, match=f"{path} must be one of"):
        config(path, None)


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_checks_itself(group: str) -> None:
    kind = GROUPS[group]
    assert group == kind.NAME
    for field in hints_of(kind):
        with pytest.raises(ConfigError, match=rf"^{group}\.{field} must be .* \({group}\.{field}: "):
            kind(**{field: object()})


WRONG: dict[str, tuple[str, Any, str]] = {
    "a whole number": ("grid.groups", 2.0, "a whole number of 64 bits or left out (grid.groups: 2.0)"),
    "not a flag": ("grid.groups", True, "a whole number of 64 bits or left out (grid.groups: True)"),
    "too large": ("training.seed", 2**64, "a whole number of 64 bits"),
    "infinite": ("method.clip", float("inf"), "a number that is not infinite or left out (method.clip: inf)"),
    "a number": ("devices.jitter", "0.5", "a number that is not infinite (devices.jitter: '0.5')"),
    "true or false": ("output.trace", 1, "true or false (output.trace: 1)"),
    "a list": ("grid.cuts", "fc1", "a list, each entry text in UTF-8 or left out (grid.cuts: 'fc1')"),
    "entries": ("method.queues", [1, "0"], "a list, each entry a whole number of 64 bits or left out"),
    "rows": ("mixing.topology", [[1, "x"]], "a list, each entry a list, each entry a number"),
    "text": ("method.rule", "a\0b", "text in UTF-8 or left out"),
    "a path": ("output.folder", 3, "a path in UTF-8 or left out (output.folder: 3)"),
    "names with values": ("model.args", [1], "names with values (model.args: [1])"),
    "a class": ("method.view", Correction, "a class of View"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_value_of_another_type_is_refused_with_the_type(name: str) -> None:
    path, value, expected = WRONG[name]
    with pytest.raises(ConfigError) as refusal:
        config(path, value)
    assert f"{path} must be" in str(refusal.value)
    assert expected in str(refusal.value)


def test_numpys_numbers_and_arrays_are_taken_for_what_they_say() -> None:
    method = MethodSettings(queues=np.array([1, 1, 0]), clip=np.float32(0.5), staleness=None)  # type: ignore[arg-type]
    assert method.queues == [1, 1, 0]
    assert type(method.clip) is float
    rows = MixingSettings(topology=np.full((2, 2), 0.5)).topology  # type: ignore[arg-type]
    assert rows == [[0.5, 0.5], [0.5, 0.5]]
    assert type(GridSettings(groups=np.int64(2)).groups) is int  # type: ignore[arg-type]


def test_a_path_may_be_text() -> None:
    assert config("output.folder", "runs/a").output.folder == Path("runs/a")


def test_tuples_are_lists() -> None:
    settings = Settings.of({"staleness": (2, 0), "mixing": {"topology": ((0.5, 0.5), (0.5, 0.5))}})
    written = yaml.safe_load(yaml.safe_dump(settings.plain()))
    assert written["method"]["staleness"] == [2, 0]
    assert written["mixing"]["topology"] == [[0.5, 0.5], [0.5, 0.5]]


SAME: dict[str, list[dict[str, Any]]] = {
    "method": [
        {"method": "dsp", "staleness": [2, 0]},
        {"method": {"name": "dsp", "staleness": [2, 0]}},
        {"method": MethodSettings(name="dsp", staleness=[2, 0])},
        {"method": MethodSettings(name="dsp"), "staleness": [2, 0]},
        {"method": {"name": "dsp"}, "staleness": [2, 0]},
    ],
    "servers": [{"servers": 2, "learners": 3}, {"servers": ServerSettings(number=2, learners=3)}],
    "engine": [
        {"engine": "simulator"},
        {"engine": {"kind": "simulator"}},
        {"engine": EngineSettings(kind="simulator")},
    ],
    "out": [{"out": "runs"}, {"out": Path("runs")}, {"output": {"folder": "runs"}}],
    "nothing": [{}, {"method": {}}, {"mixing": MixingSettings()}],
}


@pytest.mark.parametrize("name", SAME)
def test_a_group_a_mapping_and_a_short_name_say_the_same(name: str) -> None:
    first, *others = (Settings.of(given) for given in SAME[name])
    assert all(other == first for other in others)
    assert (first == Settings()) == (name == "nothing")


def test_every_short_name_gives_its_field() -> None:
    values = {
        "staleness": [1, 0],
        "corrections": ["none"],
        "cuts": ["fc"],
        "blocks": ["layers.*"],
        "dtype": "float64",
        "precision": "bf16",
        "evaluation": "pipeline",
        "compile": True,
        "epochs": 2.0,
        "lr": 0.5,
    }
    for short, path in SHORT.items():
        hint = PATHS[path]
        value = values.get(short) or (words(hint) or ("text",))[-1] if "str" in str(hint) or short in values else 7
        value = Path("there") if short in ("costs", "out") else "cpu" if short == "device" else value
        assert at(RunConfig.of({short: value}), path) == value, short


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "unknown": ({"batchsize": 8}, r"unknown option .*'batchsize'.*did you mean batch_size"),
    "unknown group": ({"mixin": {"period": 2}}, r"unknown option .*'mixin'.*did you mean mixing"),
    "unknown in a group": ({"mixing": {"perod": 2}}, r"unknown option .*'perod'.*did you mean (mixing\.)?period"),
    "flat": ({"period": 2}, r"unknown option .*'period'"),
    "of a task": ({"lr": 0.5}, r"unknown option .*'lr'"),
    "twice": ({"stages": 2, "grid": {"stages": 3}}, r"given twice \(grid\.stages: 2 and 3\)"),
    "twice by its name": ({"method": MethodSettings(view="current"), "view": "stashed"}, r"twice \(method\.view: "),
    "no group": ({"grid": 3}, r"grid is a group \(grid: 3\); name its options: groups, stages, cuts"),
    "another group": ({"grid": MixingSettings()}, r"grid takes GridSettings \(grid: MixingSettings\)"),
    "type": ({"stages": "two"}, r"grid\.stages must be a whole number"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_option_is_refused(name: str) -> None:
    given, expected = REFUSED[name]
    with pytest.raises(ConfigError, match=expected):
        Settings.of(given)


def test_the_options_of_a_call_are_refused_alike() -> None:
    with pytest.raises(ConfigError, match=r"given twice \(grid\.stages: 3 and 2\)"):
        stalegrid.train(
            nn.Linear(4, 3),
            TensorDataset(torch.zeros(8, 4)),
            loss=nn.CrossEntropyLoss(),
            optimizer=torch.optim.Adam,
            stages=2,
            grid=GridSettings(stages=3),
        )


def test_an_option_is_short_where_it_may_be() -> None:
    expected = {
        "method.name": "--method",
        "servers.number": "--servers",
        "grid.groups": "--groups",
        "output.folder": "--out",
        "training.batch_size": "--batch-size",
        "method.micro_batches": "--micro-batches",
        "mixing.period": "--mixing.period",
        "optimizer.momentum": "--optimizer.momentum",
    }
    assert {path: option_of(RunConfig, path) for path in expected} == expected
    assert len({option_of(RunConfig, path) for path in PATHS}) == len(PATHS)


def test_a_configuration_says_what_was_chosen_and_what_everybody_asks_for() -> None:
    assert set(ALWAYS) <= set(PATHS)
    usual = RunConfig().plain()
    said = {f"{group}.{field}" for group, fields in usual.items() for field in fields}
    assert said == {path for path in ALWAYS if at(RunConfig(), path) is not None and path != "output.folder"}
    changed = RunConfig.of({"mixing": {"period": 2}, "out": "runs", "seed": 0}).plain()
    assert changed["mixing"] == {"period": 2}
    assert {**changed, "mixing": {}} == {**usual, "mixing": {}}


class Shrinking(Correction):
    """A correction of a user's own, taken by its path."""

    def rate(self, update: Update) -> float:
        return 0.5


class Own(Stashed):
    """A view of a user's own."""


def narrow(width: int = 8) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Tanh(), nn.Linear(width, 10))


def some_digits(samples: int) -> tuple[TensorDataset, TensorDataset]:
    train, test = opened(make_task(RunConfig()).data), opened(make_task(RunConfig()).test)
    return _first(train, samples), _first(test, 32)


def _first(data: Any, samples: int) -> TensorDataset:
    x, y = zip(*(data[i] for i in range(samples)), strict=True)
    return TensorDataset(torch.stack(x), torch.tensor([int(label) for label in y]))


def squared() -> Any:
    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        return nn.functional.mse_loss(outputs, nn.functional.one_hot(targets, 10).to(outputs.dtype))

    return loss


GRAPH = nx.path_graph(3)
ONE = {"kind": "simulator"}
MINE = "tests.test_config"


@pytest.mark.parametrize(
    ("group", "field", "value"),
    [
        ("method", "name", "stalegrid.methods.published:SGD"),
        ("method", "view", f"{MINE}:Own"),
        ("method", "corrections", ["clip=1.0", f"{MINE}:Shrinking"]),
        ("mixing", "topology", f"{MINE}:GRAPH"),
        ("model", "name", f"{MINE}:narrow"),
    ],
)
def test_the_path_of_a_value_is_written_as_it_was_given(group: str, field: str, value: Any) -> None:
    asked = RunConfig.of({group: {field: value}})
    assert asked.plain()[group][field] == value
    assert RunConfig.of(asked.plain()) == asked


def test_a_class_is_written_by_its_path() -> None:
    plain = Settings.of({"view": Own, "corrections": [Shrinking, "clip=1.0"]}).plain()
    assert plain["method"]["view"] == f"{MINE}:Own"
    assert plain["method"]["corrections"] == [f"{MINE}:Shrinking", "clip=1.0"]


RUNS: dict[str, dict[str, Any]] = {
    "usual": {},
    "queues": {"method": {"name": "dsp", "queues": [1, 1, 0], "clip": 0.5}, "stages": 3, "groups": 1},
    "micro-batches": {"method": {"name": "gpipe", "micro_batches": 2}, "stages": 2},
    "schedule": {
        "method": "sgd",
        "optimizer": {"name": "sgd", "momentum": 0.5, "nesterov": True, "weight_decay": 0.0},
        "lr": 0.1,
        "schedule": {"name": "step", "milestones": [0.1]},
    },
    "edges": {"groups": 3, "mixing": {"topology": "0-1,1-2", "period": 2, "lag": 1, "momentum": True}},
    "rows": {"groups": 2, "mixing": {"kind": "adapt-then-combine", "topology": [[0.75, 0.25], [0.25, 0.75]]}},
    "arrays": {"groups": 2, "mixing": {"topology": np.full((2, 2), 0.5)}, "staleness": np.array([2, 0])},
    "type": {"training": {"dtype": "float64", "batch_size": 8}, "view": "current"},
    "rule": {"method": {"name": "dsp", "rule": "exponential=0.5"}, "groups": 1},
    "servers": {"method": "softsync", "servers": {"number": 2, "learners": 3, "softsync": 2, "momentum_at": "learner"}},
    "hard": {"method": "hardsync", "learners": 2},
    "asynchronous": {"method": "asgd", "learners": 3, "devices": {"jitter": 0.5}},
    "own task": {
        "model": {"name": f"{MINE}:narrow", "args": {"width": 6}},
        "data": {"name": f"{MINE}:some_digits", "args": {"samples": 200}},
        "loss": f"{MINE}:squared",
        "optimizer": {"name": "torch.optim:RMSprop", "args": {"alpha": 0.5}, "lr": 0.01},
        "schedule": {"name": "torch.optim.lr_scheduler:StepLR", "args": {"step_size": 2}},
        "grid": {"groups": 2, "stages": 2},
    },
    "own parts": {"view": f"{MINE}:Own", "corrections": [f"{MINE}:Shrinking"], "groups": 1},
    "own graph": {"groups": 3, "topology": f"{MINE}:GRAPH"},
}


@pytest.mark.parametrize("name", RUNS)
def test_the_configuration_of_a_run_runs_again_to_the_same_bits(name: str, tmp_path: Path) -> None:
    asked = {"updates": 6, "engine": ONE, "output": {"log_every": 1}, **RUNS[name]}
    if "training" in asked:
        asked["training"] = {**asked["training"], "updates": asked.pop("updates")}
    again: dict[str, Any] = asked
    for turn in ("one", "two"):
        run = RunConfig.of({**again, "output": {**again["output"], "folder": tmp_path / turn}})
        execute(make_task(run), run, quiet=True)
        again = yaml.safe_load((tmp_path / turn / "config.yaml").read_text())
    assert (tmp_path / "one" / "config.yaml").read_text() == (tmp_path / "two" / "config.yaml").read_text()
    one, two = (load_file(tmp_path / turn / "model.safetensors") for turn in ("one", "two"))
    assert one.keys() == two.keys()
    assert all(torch.equal(one[part], two[part]) for part in one)


@pytest.mark.parametrize("method", METHODS, ids=lambda method: method.name)
def test_what_a_plan_settles_is_settled_once_and_for_all(method: Any) -> None:
    asked = RunConfig.of({"method": method.name, "updates": max(12, 2 * method.turns.period)})
    task = make_task(asked)
    settled = plan_of(task, asked).settled(asked)
    plain = settled.plain()
    read = RunConfig.of(yaml.safe_load(yaml.safe_dump(plain)))
    assert plan_of(task, read).settled(read).plain() == plain


def test_a_number_is_no_cut() -> None:
    for number in (2, 2.0, None):
        with pytest.raises(ConfigError, match=rf"the name of the module .*\(cuts: \[{number}\], entry: {number}\)"):
            GridSettings(cuts=[number])  # type: ignore[list-item]
    assert GridSettings(cuts=["2"]).cuts == ["2"]
