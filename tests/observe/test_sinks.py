"""How the staleness of reports is summed for a summary."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from stalegrid.errors import OutputError
from stalegrid.observe.records import Record, Report
from stalegrid.observe.sinks import METRICS, SUMMARY, Dispensable, Folder, Several, Summed


def seen(histogram: list[int], gap: float | None = None, gap_max: float | None = None, held: int = 0) -> Record:
    return {"histogram": histogram, "gap": gap, "gap_max": gap_max, "held": held}


def test_nothing_is_summed_of_nothing() -> None:
    assert Summed().histogram == []


def test_histograms_add_up_and_the_rest_follows_from_them() -> None:
    total = Summed()
    total.add(seen([4, 0], 0.0, 0.0, held=10))
    total.add(seen([0, 1, 3], 0.5, 0.75, held=30))
    total.add(seen([0, 0, 2, 0], 1.0, 1.25, held=20))
    total.add(seen([0, 0, 1], 0.5, 0.5, held=5))
    record = total.record()
    assert record["histogram"] == [4, 1, 6, 0]
    assert record["mean"] == 13 / 11
    assert record["max"] == 2
    assert record["gap"] == pytest.approx(0.5)
    assert record["gap_max"] == 1.25
    assert record["held"] == 30


def test_reports_without_a_gap_do_not_count_in_its_mean() -> None:
    total = Summed()
    total.add(seen([0, 2], 0.5, 0.75))
    total.add(seen([0, 2]))
    assert (total.record()["gap"], total.record()["gap_max"]) == (0.5, 0.75)


def test_a_gap_that_nobody_measured_is_none() -> None:
    total = Summed()
    total.add(seen([0, 2]))
    assert (total.record()["gap"], total.record()["gap_max"]) == (None, None)


def test_it_takes_what_a_report_says() -> None:
    total = Summed()
    total.add(Report(gaps=1, gap_sum=0.5, gap_max=0.5, held=7, histogram=[0, 2]).staleness())
    assert total.record() == {"mean": 1.0, "max": 1, "histogram": [0, 2], "gap": 0.5, "gap_max": 0.5, "held": 7}


def test_a_summary_has_the_staleness_of_every_stage_over_groups(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"method": "none"})
    common: dict[str, Any] = {"update": 1, "loss": 1.0, "samples": 4}
    units = {
        "(0,1)": seen([1, 0], 0.0, 0.0, held=1),
        "(0,0)": seen([0, 2], 1.0, 1.5, held=5),
        "(1,0)": seen([1, 1], 2.0, 2.5, held=6),
        "(1,1)": seen([1, 0], 0.0, 0.0, held=2),
    }
    folder.report({**common, "staleness": units})
    folder.report({**common, "update": 2, "staleness": units})
    folder.evaluation({"version": 2}, nn.Linear(1, 1))
    folder.close()
    summary = json.loads((tmp_path / SUMMARY).read_text())
    assert summary["staleness"] == [
        {"stage": 0, "mean": 0.75, "max": 1, "histogram": [2, 6], "gap": 1.5, "gap_max": 2.5, "held": 6},
        {"stage": 1, "mean": 0.0, "max": 0, "histogram": [4, 0], "gap": 0.0, "gap_max": 0.0, "held": 2},
    ]
    assert "lost_learners" not in summary
    lines = [json.loads(line) for line in (tmp_path / METRICS).read_text().splitlines()]
    assert [line["kind"] for line in lines] == ["train", "train", "test"]
    assert lines[0]["staleness"] == units


def test_a_summary_has_the_staleness_of_every_learner_and_of_all(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {}, limit=2)
    common: dict[str, Any] = {"loss": 1.0, "samples": 4, "lost": []}
    folder.report({**common, "update": 1, "staleness": {"(10,0)": seen([1, 0, 1]), "(2,0)": seen([0, 1])}})
    folder.report({**common, "update": 2, "staleness": {"(2,0)": seen([0, 0, 0, 1])}})
    folder.evaluation({"version": 2}, nn.Linear(1, 1))
    folder.close()
    summary = json.loads((tmp_path / SUMMARY).read_text())
    limits = {"limit": 2, "above_limit": 0.0}
    assert summary["staleness"] == [
        {"learner": 2, "mean": 2.0, "max": 3, "histogram": [0, 1, 0, 1], "limit": 2, "above_limit": 0.5},
        {"learner": 10, "mean": 1.0, "max": 2, "histogram": [1, 0, 1], **limits},
    ]
    whole = {"mean": 1.5, "max": 3, "histogram": [1, 1, 1, 1], "limit": 2, "above_limit": 0.25}
    assert summary["staleness_of_all"] == whole
    assert summary["lost_learners"] == []


def test_a_summary_has_all_learners_that_were_lost_so_far(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {}, limit=2)
    for update, lost in enumerate(([], [3], [], [0, 1]), start=1):
        record = {"update": update, "loss": 1.0, "samples": 4, "staleness": {"(2,0)": seen([1])}, "lost": lost}
        folder.report(record)
        folder.evaluation({"version": update}, nn.Linear(1, 1))
        told = json.loads((tmp_path / SUMMARY).read_text())["lost_learners"]
        assert told == [[], [3], [3], [3, 0, 1]][update - 1]
    folder.close()


class Refusing:
    """A place that takes one report and then no more."""

    def __init__(self) -> None:
        self.taken = 0

    def report(self, record: Record) -> None:
        self.taken += 1
        if self.taken > 1:
            raise OSError("no room")

    def evaluation(self, record: Record, model: nn.Module) -> None:
        self.taken += 100

    def units(self, vectors: object) -> None: ...

    def close(self) -> None: ...


class Closing(Refusing):
    """A place that says that it was closed, and may fail then."""

    def __init__(self, name: str, closed: list[str], error: Exception | None = None) -> None:
        super().__init__()
        self.name, self.closed, self.error = name, closed, error

    def close(self) -> None:
        self.closed.append(self.name)
        if self.error is not None:
            raise self.error


def test_all_places_are_closed_in_order_where_one_fails() -> None:
    closed = list[str]()
    sinks = [Closing("a", closed, OutputError("no room")), Closing("b", closed), Closing("c", closed)]
    with pytest.raises(OutputError, match="no room"):
        Several(sinks).close()
    assert closed == ["a", "b", "c"]


def test_a_place_that_fails_is_left_out_and_told_once() -> None:
    place, said = Refusing(), list[str]()
    sink = Dispensable("the tree", lambda: place, said.append)
    for _ in range(4):
        sink.report({})
    sink.evaluation({}, nn.Identity())
    sink.close()
    assert place.taken == 2
    assert said == ["training goes on without the tree: OSError: no room"]


def test_a_place_that_cannot_be_made_is_left_out() -> None:
    def make() -> Refusing:
        raise TypeError("broken package")

    said = list[str]()
    Dispensable("the tree", make, said.append).report({})
    assert said == ["training goes on without the tree: TypeError: broken package"]


def test_what_is_written_is_strict_json(tmp_path: Path) -> None:
    folder = Folder(tmp_path, {"spectral_gap": math.nan})
    record = {"update": 1, "loss": math.inf, "samples": 4, "staleness": {"(0,0)": seen([1], math.nan, math.inf)}}
    folder.report(record)
    folder.evaluation({"version": 1, "test_loss": math.nan}, nn.Linear(1, 1))
    folder.close()
    lines = [*(tmp_path / METRICS).read_text().splitlines(), (tmp_path / SUMMARY).read_text()]
    metrics, _, summary = (json.loads(line, parse_constant=pytest.fail) for line in lines)
    assert (metrics["loss"], metrics["staleness"]["(0,0)"]["gap"]) == (None, None)
    assert (summary["test_loss"], summary["train_loss"], summary["spectral_gap"]) == (None, None, None)
