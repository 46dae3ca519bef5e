"""Files that come back changed by anybody: one line that names the file, and never a traceback."""

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stalegrid.cli import main
from stalegrid.errors import ConfigError
from stalegrid.observe.folder import CONFIG, FAILURE, LIMITS, METRICS, MODEL, SUMMARY
from stalegrid.observe.summed import Staleness
from stalegrid.observe.trace import TRACE
from stalegrid.programs.deliveries import DELIVERIES, read_order
from stalegrid.programs.softsync import Rules
from stalegrid.report.chosen import chosen
from stalegrid.report.numbers import further, headline
from stalegrid.report.told import read_config, read_told
from stalegrid.timing.costs import CostTable

QUICK = ("--engine", "simulator", "--updates", "4", "--output.log-every", "2")
TRAIN = ("train", *QUICK)
Said = pytest.CaptureFixture[str]

WRONG: tuple[Any, ...] = (None, "text", -1, 10**400, 1e400, [], [[]], {}, True, {"a": [1]})
"""What takes the place of every value in turn."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs, and a table of costs."""
    made = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, "--stages", "2", "--groups", "1", "--output.trace", "true", "--out", str(made / "grid")]) == 0
    assert main([*TRAIN, "--method", "asgd", "--learners", "2", "--out", str(made / "served")]) == 0
    (made / "costs").mkdir()
    costs = {"batch_size": 4, "handling": 0.5, "parts": [{"forward": 1.0, "backward": 2, "name": "a", "output": 8}] * 2}
    (made / "costs" / "costs.yaml").write_text(yaml.safe_dump(costs))
    assert main(["compare", *QUICK, "--methods", "sgd", "--seeds", "1", "--out", str(made / "compared")]) == 0
    return {name: made / name for name in ("grid", "served", "costs", "compared")}


COMMANDS: dict[str, Callable[[Path], list[str]]] = {
    "report": lambda folder: ["report", str(folder)],
    "replay": lambda folder: ["replay", str(folder)],
    "train --config": lambda folder: [*TRAIN, "--config", str(folder / CONFIG)],
    "train --costs": lambda folder: [*TRAIN, "--stages", "2", "--costs", str(folder / "costs.yaml")],
    "compare": lambda folder: ["compare", *QUICK, "--methods", "sgd", "--seeds", "1", "--out", str(folder)],
}

READ = [
    ("report", "grid", CONFIG),
    ("report", "grid", METRICS),
    ("report", "grid", TRACE),
    ("replay", "served", CONFIG),
    ("replay", "served", SUMMARY),
    ("replay", "served", DELIVERIES),
    ("train --config", "grid", CONFIG),
    ("train --costs", "costs", "costs.yaml"),
    ("compare", "compared", "comparison.yaml"),
    ("compare", "compared", f"sgd-0/{SUMMARY}"),
]


def parsed(path: Path) -> Any:
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def written(content: Any, path: Path) -> str:
    if path.suffix == ".jsonl":
        return "".join(json.dumps(line) + "\n" for line in (content if isinstance(content, list) else [content]))
    return json.dumps(content) if path.suffix == ".json" else yaml.safe_dump(content)


def changed(value: Any, wrong: Any) -> Iterator[Any]:
    """Yield a value with each of its parts replaced in turn; of what is alike, the first."""
    yield wrong
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from ({**value, name: other} for other in changed(inner, wrong))
        yield from ({k: v for k, v in value.items() if k != name} for name in value)
    if isinstance(value, list) and value:
        yield from ([other, *value[1:]] for other in changed(value[0], wrong))


def as_text(whole: bytes) -> dict[str, bytes]:
    return {
        "nothing": b"",
        "half": whole[: len(whole) // 2],
        "latin-1": "größe: 1\n".encode("latin-1") + whole,
        "nested mappings": b'{"a":' * 50_000,
        "references": b"a: &a [1]\nb: [*a, *a]\n",
        "an object": b"!!python/object/apply:os.mkdir [made]\n",
    }


@pytest.mark.parametrize(("command", "run", "name"), READ)
def test_a_file_of_something_else_is_a_line(
    folders: dict[str, Path], tmp_path: Path, command: str, run: str, name: str, capsys: Said
) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders[run], folder)
    whole = (folder / name).read_bytes()
    capsys.readouterr()
    for kind, content in as_text(whole).items():
        (folder / name).write_bytes(content)
        status = main(COMMANDS[command](folder))
        said = capsys.readouterr().err
        assert status in (0, 2), f"{kind}: {said}"
        assert said.count("\n") == (1 if status else 0), f"{kind}: {said}"
    assert not Path("made").exists()


def summed(folder: Path) -> None:
    """Read the metrics, and do with them what a report does."""
    staleness = Staleness(None)
    for record in read_told(folder).train:
        staleness.add(record["staleness"])
    staleness.record()


def numbered(folder: Path) -> None:
    """Read the summary, and write its numbers as a page of two runs does."""
    for number in (*headline(told := read_told(folder)), *further(told)):
        str(number)


READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    CONFIG: ("grid", read_config),
    METRICS: ("grid", summed),
    TRACE: ("grid", read_told),
    SUMMARY: ("grid", numbered),
    DELIVERIES: ("served", lambda folder: read_order(folder / DELIVERIES, Rules(2, 1))),
    "costs.yaml": ("costs", lambda folder: CostTable.read(folder / "costs.yaml")),
}


@pytest.mark.parametrize("name", READERS)
def test_a_wrong_value_is_refused_in_a_line(folders: dict[str, Path], tmp_path: Path, name: str) -> None:
    run, read = READERS[name]
    folder = tmp_path / "run"
    shutil.copytree(folders[run], folder)
    content = parsed(folder / name)
    if name != TRACE:
        (folder / TRACE).unlink(missing_ok=True)  # which takes long to read
    refusals = []
    for wrong in WRONG:
        for other in changed(content, wrong):
            (folder / name).write_text(written(other, folder / name))
            try:
                read(folder)
            except ConfigError as refusal:
                refusals.append(str(refusal))
    assert refusals
    assert all(str(folder) in said and "\n" not in said for said in refusals)


def test_what_was_chosen_is_told_of_a_configuration_that_lacks_something(folders: dict[str, Path]) -> None:
    for folder in (folders["grid"], folders["served"]):
        config = read_config(folder)
        for group, fields in config.items():
            if group != "method":
                assert "method.name" in chosen({name: one for name, one in config.items() if name != group})
                for left_out in fields:
                    own = {name: value for name, value in fields.items() if name != left_out}
                    assert "method.name" in chosen({**config, group: own})


BESIDE: dict[str, Any] = {
    LIMITS: {"peak": 0.1, "each": [{"stage": 0, "staleness": 2, "rate": 0.2, "why": ""}]},
    FAILURE: {"by": "NonFiniteLoss", "why": "the loss is nan"},
}


@pytest.mark.parametrize("name", BESIDE)
def test_a_wrong_value_of_what_not_every_run_has_is_refused_in_a_line(
    folders: dict[str, Path], tmp_path: Path, name: str
) -> None:
    (tmp_path / CONFIG).write_bytes((folders["grid"] / CONFIG).read_bytes())
    refusals = []
    for other in (other for wrong in WRONG for other in changed(BESIDE[name], wrong)):
        (tmp_path / name).write_text(json.dumps(other))
        try:
            read_told(tmp_path)
        except ConfigError as refusal:
            refusals.append(str(refusal))
    assert len(refusals) > len(WRONG)
    assert all(str(tmp_path / name) in said and "\n" not in said for said in refusals)


def test_two_runs_of_which_one_is_damaged_are_a_line(folders: dict[str, Path], tmp_path: Path, capsys: Said) -> None:
    shutil.copytree(folders["served"], tmp_path / "run")
    (tmp_path / "run" / SUMMARY).write_text("{")
    for pair in ((tmp_path / "run", folders["grid"]), (folders["grid"], tmp_path / "run")):
        capsys.readouterr()
        assert main(["report", *map(str, pair)]) == 2
        assert re.fullmatch(rf".*{SUMMARY}.*\n", capsys.readouterr().err)


def test_a_model_that_is_none_is_a_line(folders: dict[str, Path], tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders["served"], folder)
    for content in (b"", bytes(100), (folder / MODEL).read_bytes()[:-5]):
        (folder / MODEL).write_bytes(content)
        assert main(["replay", str(folder)]) == 2
        assert re.fullmatch(rf".*{MODEL}.*\n", capsys.readouterr().err)
