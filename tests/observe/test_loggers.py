"""Where records go: by name, by path and as objects, and what happens where one fails."""

import importlib.util
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.observe.folder import Folder
from stalegrid.observe.loggers import find_loggers, spared
from stalegrid.observe.tensorboard import TensorBoard
from tests.observe.test_summed import seen


class Keeping:
    def __init__(self, fails: str = "") -> None:
        self.fails = fails
        self.told: list[Any] = []

    def start(self, settings: dict[str, Any]) -> None:
        self._take("start", settings)

    def log(self, record: dict[str, Any]) -> None:
        self._take("log", record)

    def finish(self, summary: dict[str, Any]) -> None:
        self._take("finish", summary)

    def _take(self, name: str, record: dict[str, Any]) -> None:
        if name == self.fails:
            raise OSError("no room")
        self.told.append((name, record))


def test_tensorboard_is_the_usual_place_where_it_is_installed_and_a_folder_stays(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    assert [type(one) for one in find_loggers(None, [], tmp_path)] == [TensorBoard]
    assert find_loggers(None, [], None) == []
    assert find_loggers([], [], tmp_path) == []
    with pytest.raises(ConfigError, match="and there is none"):
        find_loggers(["tensorboard"], [], None)


def test_loggers_are_objects_or_paths_of_classes() -> None:
    mine = Keeping()
    found = find_loggers(["tests.observe.test_loggers:Keeping"], [mine], None)
    assert [type(one) for one in found] == [Keeping, Keeping]
    assert found[1] is mine


@pytest.mark.parametrize(
    ("wrong", "text"),
    [
        ("wanda", "unknown logger.*did you mean wandb"),
        (Keeping, r"start, log and finish \(it is: Keeping\)"),
        (print, r"start, log and finish \(it is: builtin_function_or_method\)"),
        ("builtins:dict", r"start, log and finish \(it is: dict\)"),
        ("builtins:memoryview", "the logger cannot be made"),
    ],
)
def test_what_is_no_logger_is_refused(wrong: Any, text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        find_loggers([], [wrong], None)


def test_a_missing_package_is_said_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    for name in ("wandb", "mlflow"):
        with pytest.raises(ConfigError, match=rf"package is missing.*{name}.*pip install 'stalegrid\[{name}\]'"):
            find_loggers([name], [], None)


@pytest.mark.parametrize("fails", ["start", "log", "finish"])
def test_training_goes_on_without_a_logger_that_fails(fails: str, tmp_path: Path) -> None:
    said: list[str] = []
    bad, good = Keeping(fails), Keeping()
    loggers = spared([bad, good], said.append)
    folder = Folder(tmp_path, {}, loggers=loggers)
    for logger in loggers:
        logger.start({"seed": 1})
    record = {"update": 1, "loss": 1.0, "samples": 4, "staleness": {"(0,0)": seen([1])}}
    for _ in range(2):
        folder.report(record)
    folder.evaluation({"version": 1}, nn.Linear(1, 1))
    folder.close()
    assert said == ["training goes on without Keeping: OSError: no room"]
    assert [name for name, _ in good.told] == ["start", "log", "log", "log", "finish"]
    (_, settings), (_, first), *_, (_, test), (_, summary) = good.told
    assert settings == {"seed": 1}
    assert first["kind"] == "train"
    assert first.keys() == {"kind", "seconds", "samples_per_second", *record}
    assert test["kind"] == "test"
    assert summary == folder.summary


def test_a_run_that_fails_is_finished_with_what_there_is(tmp_path: Path) -> None:
    mine = Keeping()
    Folder(tmp_path, {}, loggers=[mine]).close()
    assert mine.told == [("finish", {})]
