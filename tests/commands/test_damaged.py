"""Files that come back changed by anybody: one line that names the file, and never a traceback."""

import json
import re
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from stalegrid.cli import main
from stalegrid.deliveries import DELIVERIES
from stalegrid.errors import ConfigError
from stalegrid.observe.sinks import CONFIG, METRICS, MODEL, SUMMARY
from stalegrid.observe.trace import TRACE
from stalegrid.task import Task

QUICK = ("--engine", "simulator", "--updates", "4", "--log-every", "2")
TRAIN = ("train", *QUICK)
Said = pytest.CaptureFixture[str]

WRONG: tuple[Any, ...] = (None, "text", -1, 10**400, 1e400, [], [[]], {}, True, {"a": [1]})
"""What takes the place of every value in turn."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of runs, and a table of costs."""
    made = tmp_path_factory.mktemp("runs")
    assert main([*TRAIN, "--stages", "2", "--groups", "1", "--trace", "true", "--out", str(made / "grid")]) == 0
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
    ("report", "served", METRICS),
    ("replay", "served", CONFIG),
    ("replay", "served", SUMMARY),
    ("replay", "served", DELIVERIES),
    ("train --config", "grid", CONFIG),
    ("train --costs", "costs", "costs.yaml"),
    ("compare", "compared", "comparison.yaml"),
    ("compare", "compared", f"sgd-0/{SUMMARY}"),
    ("compare", "compared", f"sgd-0/{METRICS}"),
]


def parsed(path: Path) -> Any:
    text = path.read_text()
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in text.splitlines()]
    return json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)


def written(content: Any, path: Path) -> str:
    if path.suffix == ".jsonl":
        return "".join(json.dumps(line) + "\n" for line in content)
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
        "zeros": bytes(100),
        "nested": b"[" * 100_000,
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


def stop(task: Task, *arguments: object, **options: object) -> None:
    """Stand in for training, which is none of these tests' business."""
    raise ConfigError("as far as that")


@pytest.mark.parametrize(("command", "run", "name"), [case for case in READ if case[0] not in ("train --config",)])
def test_a_wrong_value_is_a_line_that_names_it(
    folders: dict[str, Path],
    tmp_path: Path,
    command: str,
    run: str,
    name: str,
    capsys: Said,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("stalegrid.replay.execute", stop)
    monkeypatch.setattr(sys.modules["stalegrid.train"], "execute", stop)  # a function hides the module
    folder = tmp_path / "run"
    shutil.copytree(folders[run], folder)
    content = parsed(folder / name)
    refusals = 0
    for wrong in WRONG:
        for other in changed(content, wrong):
            (folder / name).write_text(written(other, folder / name))
            status = main(COMMANDS[command](folder))
            said = capsys.readouterr().err
            assert status in (0, 2), said
            assert said.count("\n") == (1 if status else 0), said
            refusals += status == 2
    assert refusals


def test_a_model_that_is_none_is_a_line(folders: dict[str, Path], tmp_path: Path, capsys: Said) -> None:
    folder = tmp_path / "run"
    shutil.copytree(folders["served"], folder)
    for content in (b"", bytes(100), (folder / MODEL).read_bytes()[:-5]):
        (folder / MODEL).write_bytes(content)
        assert main(["replay", str(folder)]) == 2
        assert re.fullmatch(rf".*{MODEL}.*\n", capsys.readouterr().err)
