"""What a run says on a console of each kind."""

import io
from typing import Any

import pytest
from rich.console import Console
from torch import nn

from stalegrid.observe.console import ConsoleSink
from stalegrid.observe.displays import Rewritten, display_of
from stalegrid.observe.records import Record


def record(update: int, **more: Any) -> Record:
    staleness = {"(0,0)": {"max": 2, "gap": None}, "(1,0)": {"max": 4, "gap": None}}
    return {"update": update, "samples": 8, "loss": 0.5, "train_accuracy": None, "staleness": staleness} | more


def said(*reports: Record, evaluated: Record | None = None, groups: bool = True, notebook: bool = False) -> list[str]:
    file = io.StringIO()
    sink = ConsoleSink(display_of(Console(file=file, width=40), 100, notebook), groups)
    for report in reports:
        sink.report(report)
    if evaluated is not None:
        sink.evaluation(evaluated, nn.Linear(1, 1))
    sink.close()
    return file.getvalue().split("\n")[:-1]


def test_a_report_tells_the_largest_staleness_of_all_learners() -> None:
    (line,) = said(record(1, lost=[]))
    assert line.startswith("update 1/100 ")
    assert " loss 0.5000 staleness <= 4 left " in line


def test_every_learner_that_is_lost_has_a_line_even_between_the_reports_that_are_shown() -> None:
    lines = said(record(1, lost=[]), record(2, lost=[2, 0]), record(3, lost=[]))
    assert lines[1:] == ["learner 2 is gone", "learner 0 is gone"]


def test_consensus_is_told_of_those_who_can_differ() -> None:
    evaluation = {"epoch": 1.0, "version": 5, "consensus_distance": 0.0, "test_accuracy": 0.5}
    whole = "epoch 1  version 5  test accuracy 50.00%"
    assert said(evaluated=evaluation) == [f"{whole}  consensus distance 0"]
    assert said(evaluated=evaluation, groups=False) == [whole]


def test_in_a_notebook_one_line_is_written_over_below_those_that_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Rewritten, "every", 0.0)
    evaluation = {"epoch": 1.0, "version": 5, "test_accuracy": 0.5}
    reports = record(1), record(2, train_accuracy=0.5), record(3)
    stays, foot = said(*reports, evaluated=evaluation, groups=False, notebook=True)
    first, second, third, whole = stays.split("\r")
    assert [line.split(" ")[1] for line in (first, second, third)] == ["1/100", "2/100", "3/100"]
    assert foot == third.rstrip()
    assert len(third) == len(second) > len(foot), "something of a longer line stays"
    assert whole == "epoch 1  version 5  test accuracy 50.00%".ljust(len(foot))


def test_a_notebook_is_written_to_now_and_then() -> None:
    (line,) = said(*map(record, range(1, 100)), record(100), notebook=True)
    assert [part.split(" ")[1] for part in line.split("\r")] == ["1/100", "100/100"]
