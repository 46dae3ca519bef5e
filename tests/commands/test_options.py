"""Options of the command line and in files: what they mean, and what is said of those that mean nothing."""

from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest
import yaml

from stalegrid.cli import COMMANDS, main, make_parser
from stalegrid.commands.options import EVERYTHING, config_of, names_of
from stalegrid.commands.words import expanded
from stalegrid.data.settings import TrainingSettings
from stalegrid.errors import ConfigError
from stalegrid.recipes.settings import RunConfig
from stalegrid.written.groups import hints_of

Said = pytest.CaptureFixture[str]


def parsed(command: str, *words: str) -> Namespace:
    parser, known = make_parser()
    return parser.parse_args([command, *expanded(words, known[command])])


def read(*words: str) -> RunConfig:
    return config_of(parsed("train", *words))


def value(config: RunConfig, path: str) -> Any:
    group, _, field = path.partition(".")
    return getattr(getattr(config, group), field)


GOOD: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "nothing": ((), {"grid.stages": None, "model.name": "mlp", "training.batch_size": 32}),
    "short": (("--stages", "3", "--lr=1e-3"), {"grid.stages": 3, "optimizer.lr": 0.001}),
    "whole": (("--grid.stages", "3", "--optimizer.lr=1"), {"grid.stages": 3, "optimizer.lr": 1.0}),
    "group": (("--method", "dsp", "--engine", "simulator"), {"method.name": "dsp", "engine.kind": "simulator"}),
    "whole-group": (("--method.name", "dsp", "--servers.number", "2"), {"method.name": "dsp", "servers.number": 2}),
    "underscores": (("--batch_size", "4", "--method.micro_batches=2"), {"training.batch_size": 4}),
    "twice": (("--stages", "3", "--grid.stages", "4", "--stages=5"), {"grid.stages": 5}),
    "list": (("--staleness", "4,2,0"), {"method.staleness": [4, 2, 0]}),
    "list-equals": (("--staleness=4,2,0",), {"method.staleness": [4, 2, 0]}),
    "list-brackets": (("--staleness", "[4, 2, 0]"), {"method.staleness": [4, 2, 0]}),
    "list-negative": (("--staleness", "-1,0"), {"method.staleness": [-1, 0]}),
    "auto": (("--staleness", "auto"), {"method.staleness": "auto"}),
    "negative": (("--mixing.lag", "-1", "--lr", "-.5"), {"mixing.lag": -1, "optimizer.lr": -0.5}),
    "words": (
        ("--corrections", "shrink=0.7, clip=1", "--grid.cuts", "4"),
        {"method.corrections": ["shrink=0.7", "clip=1"]},
    ),
    "cuts": (("--grid.cuts", "4,conv.1"), {"grid.cuts": ["4", "conv.1"]}),
    "numbers": (("--devices.link", "1,1e2"), {"devices.link": [1.0, 100.0]}),
    "rows": (("--topology", "[[0.5,0.5],[0.5,0.5]]"), {"mixing.topology": [[0.5, 0.5], [0.5, 0.5]]}),
    "edges": (("--topology", "0-1,1-2"), {"mixing.topology": "0-1,1-2"}),
    "flag": (("--output.trace", "--output.gap", "false"), {"output.trace": True, "output.gap": False}),
    "flag-equals": (("--output.trace=true", "--data.augment=false"), {"output.trace": True, "data.augment": False}),
    "null": (("--stages", "3", "--stages", "null"), {"grid.stages": None}),
    "path": (("--out", "some where"), {"output.folder": Path("some where")}),
    "args": (("--model.args.width", "64", "--model.args.rate=1e-3"), {"model.args": {"width": 64, "rate": 0.001}}),
    "args-words": (("--model.args.act", "no", "--model.args.at=16:9"), {"model.args": {"act": "no", "at": "16:9"}}),
    "args-empty": (("--model.args.act", ""), {"model.args": {"act": ""}}),
    "args-negative": (("--model.args.shift", "-3"), {"model.args": {"shift": -3}}),
    "args-dashes": (("--model.args.kernel-size", "3"), {"model.args": {"kernel_size": 3}}),
    "args-deep": (
        ("--data.args.noise.mean=1", "--data.args.noise.sd=2"),
        {"data.args": {"noise": {"mean": 1, "sd": 2}}},
    ),
    "args-yaml": (
        ("--model.args", "{sizes: [1, 2]}", "--model.args.act=x"),
        {"model.args": {"sizes": [1, 2], "act": "x"}},
    ),
    "args-json": (
        ("--model.args", '{"a": {"b": true}}', "--model.args.a.c=1"),
        {"model.args": {"a": {"b": True, "c": 1}}},
    ),
    "args-anew": (("--model.args.width=1", "--model.args", "{depth: 2}"), {"model.args": {"depth": 2}}),
}


@pytest.mark.parametrize("name", GOOD)
def test_what_options_mean(name: str) -> None:
    words, expected = GOOD[name]
    config = read(*words)
    assert {path: value(config, path) for path in expected} == expected


def test_every_field_has_an_option_under_its_whole_name() -> None:
    _, known = make_parser()
    for path in EVERYTHING:
        assert f"--{path.replace('_', '-')}" in known["train"]._option_string_actions
    assert len({names_of(path)[0] for path in EVERYTHING}) == len(EVERYTHING)


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


FILES: dict[str, tuple[str, dict[str, Any]]] = {
    "empty": ("", {"grid.stages": None}),
    "comment": ("# nothing yet\n", {"grid.stages": None}),
    "short": ("stages: 3\nlr: 1e-3\nmethod: dsp\n", {"grid.stages": 3, "optimizer.lr": 0.001, "method.name": "dsp"}),
    "groups": ("grid: {stages: 3}\noutput:\n  trace: true\n", {"grid.stages": 3, "output.trace": True}),
    "mixed": ("lr: 2\noptimizer: {momentum: 0.5}\n", {"optimizer.lr": 2, "optimizer.momentum": 0.5}),
    "own": ("model: {name: 'a.b:make', args: {width: 3}}\n", {"model.name": "a.b:make", "model.args": {"width": 3}}),
    "path": ("out: here\n", {"output.folder": Path("here")}),
}


@pytest.mark.parametrize("name", FILES)
def test_what_files_mean(name: str, tmp_path: Path) -> None:
    text, expected = FILES[name]
    config = read("--config", write(tmp_path / "run.yaml", text))
    assert {path: value(config, path) for path in expected} == expected


def test_options_come_before_files_wherever_they_stand_and_later_files_before_earlier_ones(tmp_path: Path) -> None:
    one = write(tmp_path / "one.yaml", "stages: 3\nlr: 0.5\nmodel: {name: 'a:b', args: {width: 3, depth: 1}}\n")
    two = write(tmp_path / "two.yaml", "grid: {stages: 4}\nepochs: 2\n")
    config = read("--lr", "0.25", "--config", one, "--config", two, "--model.args.depth=2")
    assert (config.grid.stages, config.optimizer.lr, config.training.epochs) == (4, 0.25, 2)
    assert config.model.args == {"width": 3, "depth": 2}
    assert read("--config", two, f"--config={one}", "--model.args", "{}").model.args == {}
    assert read("--config", two, "--config", one).grid.stages == 3


def test_a_file_may_say_more_than_a_command_asks_for(tmp_path: Path) -> None:
    path = write(tmp_path / "run.yaml", "stages: 3\nlr: 0.5\nout: here\nengine: simulator\n")
    config = config_of(parsed("profile", "--config", path))
    assert (config.optimizer.lr, config.grid.stages, config.output.folder) == (0.5, None, None)
    assert config_of(parsed("compare", "--methods", "sgd,dsp", "--config", path)).grid.stages == 3


def test_what_is_printed_is_read_as_the_same(tmp_path: Path, capsys: Said) -> None:
    words = ("--stages", "3", "--model", "a:b", "--model.args.text", "1e-3", "--out", "x", "--staleness", "4,2,0")
    assert main(("train", *words, "--print-config")) == 0
    shown = capsys.readouterr().out
    assert set(yaml.safe_load(shown)["training"]) == set(hints_of(TrainingSettings))
    assert read("--config", write(tmp_path / "shown.yaml", shown)) == read(*words)


def test_verify_has_few_updates_unless_told_otherwise(tmp_path: Path) -> None:
    assert config_of(parsed("verify")).training.updates == 12
    assert config_of(parsed("verify", "--updates", "3")).training.updates == 3
    path = write(tmp_path / "run.yaml", "updates: 5\n")
    assert config_of(parsed("verify", "--config", path)).training.updates == 5


BAD: dict[str, tuple[tuple[str, ...], str]] = {
    "nothing": ((), "a command is expected; there are: train, resume, compare,"),
    "command": (("tran",), "unknown command (command: 'tran'); did you mean train?"),
    "near": (("train", "--stagse", "3"), "(option: '--stagse'); did you mean --stages? see stalegrid train --help"),
    "near-long": (("train", "--optimiser", "sgd"), "did you mean --optimizer?"),
    "far": (("train", "--colour", "red"), "unknown option (option: '--colour'); see stalegrid train --help"),
    "beginning": (("train", "--stag", "3"), "(option: '--stag')"),
    "field": (
        ("train", "--mixing.perod=2"),
        "unknown option of mixing (option: '--mixing.perod'); did you mean --mix",
    ),
    "all-of-it": (("train", "--grid.rows", "2"), "there are: --groups, --stages, --cuts, --blocks, --grid.tied\n"),
    "group": (("train", "--gird.stages", "2"), "unknown option (option: '--gird.stages'); did you mean --stages?"),
    "not-here": (("table", "--lr", "1"), "unknown option (option: '--lr')"),
    "never-here": (("verify", "--epochs", "1"), "unknown option (option: '--epochs')"),
    "args-not-here": (("train", "--engine.args.x", "1"), "unknown option of engine (option: '--engine.args.x')"),
    "no-value": (("train", "--lr"), "an option needs a value (option: --lr)"),
    "no-value-between": (("train", "--lr", "--stages", "3"), "an option needs a value (option: --lr)"),
    "args-no-value": (("train", "--model.args.width"), "an option needs a value (option: --model.args.width)"),
    "left-over": (("train", "fast"), "unrecognized arguments: fast"),
    "required": (("plan",), "the following arguments are required: --units; see stalegrid plan --help"),
    "folder": (("replay",), "required: DIR; see stalegrid replay --help"),
    "whole": (("train", "--stages", "two"), "--stages must be a whole number of 64 bits (--stages: 'two')"),
    "whole-name": (("train", "--grid.stages", "2.0"), "--grid.stages must be a whole number of 64 bits (--grid.stages"),
    "empty": (("train", "--stages="), "--stages must be a whole number"),
    "large": (("train", "--seed", "9" * 30), "--seed must be a whole number of 64 bits"),
    "number": (("train", "--lr", "fast"), "--lr must be a number that is not infinite (--lr: 'fast')"),
    "infinite": (("train", "--lr", "1e999"), "--lr must be a number that is not infinite (--lr: '1e999')"),
    "flag": (("train", "--output.trace=1"), "--output.trace must be true or false (--output.trace: '1')"),
    "one-of": (("train", "--engine", "gpu"), "--engine must be one of processes, simulator (--engine: 'gpu')"),
    "list": (
        ("train", "--staleness", "4,two"),
        "--staleness must be a list, each entry a whole number",
    ),
    "args": (("train", "--model.args", "3"), "--model.args must be names with values (--model.args: '3')"),
    "args-yaml": (("train", "--model.args.x", "[1"), "this is no YAML (--model.args.x: '[1')"),
    "own": (("plan", "--units", "many"), "--units must be a whole number of 64 bits (--units: 'many')"),
    "no-file": (("train", "--config", "none.yaml"), "none.yaml"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_is_said_in_one_line(name: str, capsys: Said) -> None:
    words, expected = BAD[name]
    assert main(words) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert said.count("\n") == 1
    assert said.count("--") < 12, "it names the nearest, not all"


BAD_FILES: dict[str, tuple[str, str]] = {
    "no-mapping": ("- stages\n", "the file holds no options"),
    "option": ("stagse: 3\n", "unknown option (option: 'stagse'); did you mean stages?"),
    "field": ("grid: {stagse: 3}\n", "unknown option of grid (option of grid: 'stagse'); did you mean stages?"),
    "type": ("stages: two\n", "stages must be a whole number of 64 bits or left out (stages: 'two')"),
    "type-in-group": ("grid: {stages: 2.5}\n", "grid.stages must be a whole number of 64 bits or left out"),
    "twice": ("lr: 1\noptimizer: {lr: 2}\n", "an option is given twice (optimizer.lr: "),
    "group": ("grid: 3\n", "grid is a group (grid: 3); name its options"),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_what_is_wrong_in_a_file_is_said_with_its_name(name: str, tmp_path: Path, capsys: Said) -> None:
    text, expected = BAD_FILES[name]
    path = write(tmp_path / "run.yaml", text)
    assert main(("train", "--config", path)) == 2
    said = capsys.readouterr().err
    assert expected in said
    assert path in said


def test_a_text_cannot_be_a_value_of_another_type() -> None:
    with pytest.raises(ConfigError, match="--out must be a path in UTF-8"):
        read("--out", "a\0b")


def test_all_commands_can_be_asked_for() -> None:
    _, known = make_parser()
    assert set(known) == set(COMMANDS)
