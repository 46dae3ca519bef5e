"""Whether a run came to its end, as its page says first."""

import json
from pathlib import Path
from typing import Any

import pytest

from stalegrid.cli import main
from stalegrid.report.ending import ending_verdict, lost_verdict
from stalegrid.report.told import read_told
from tests.report.cases import CONFIG, METRICS, SERVED, folder_of, said, taken, trained

SMALL = ("--stages", "2", "--groups", "1", "--updates", "20")


def test_a_run_that_came_to_its_end(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL)
    assert said(ending_verdict, run) == ["well: It came to its end: 20 of 20 updates."]
    assert said(lost_verdict, run) == []


def test_a_run_that_was_asked_for_in_part_came_to_its_end(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL, "--training.until", "10")
    assert said(ending_verdict, run) == ["well: It came to its end: 10 of 20 updates."]


def test_a_run_whose_loss_is_no_number_says_so_before_anything_is_reported(tmp_path: Path) -> None:
    arguments = ["train", "--engine", "simulator", *SMALL, "--lr", "1e6", "--schedule", "constant"]
    assert main([*arguments, "--out", str(tmp_path / "run")]) == 1
    (line,) = said(ending_verdict, read_told(tmp_path / "run"))
    assert line.startswith("wrong: It ended in NonFiniteLoss, nothing has been reported yet: the loss is ")


def test_an_interrupt_is_no_fault_of_the_run(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, metrics=METRICS[:2])
    (folder / "failure.json").write_text(json.dumps({"by": "KeyboardInterrupt", "why": ""}))
    assert said(ending_verdict, read_told(folder)) == ["open: It was interrupted, 1 of 2 epochs."]


def test_what_went_on_has_not_failed(tmp_path: Path) -> None:
    trained(tmp_path / "run", *SMALL, "--checkpoint", "10")
    (tmp_path / "run" / "failure.json").write_text(json.dumps({"by": "WorkerDied", "why": "killed"}))
    assert main(["resume", str(tmp_path / "run" / "checkpoints" / "000000010")]) == 0
    assert said(ending_verdict, read_told(tmp_path / "run")) == ["well: It came to its end: 20 of 20 updates."]


def test_where_nothing_is_noted_nobody_knows(tmp_path: Path) -> None:
    run = read_told(folder_of(tmp_path, metrics=METRICS[:2]))
    assert said(ending_verdict, run) == ["open: It goes on, or was ended from outside: 1 of 2 epochs."]
    run = read_told(folder_of(tmp_path, metrics=[]))
    assert said(ending_verdict, run) == ["open: It goes on, or was ended from outside: nothing has been reported yet."]


SUMMARY: dict[str, Any] = {"version": 10, "updates": 10, "staleness": []}


def test_groups_that_were_lost_are_named(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, CONFIG)
    lost = {"lost_groups": [{"group": 1, "version": 4, "why": "process 2 was killed"}]}
    back = {"returned_groups": [{"group": 1, "version": 8, "donor": 0}]}
    (folder / "summary.json").write_text(json.dumps(SUMMARY | lost | back))
    assert said(lost_verdict, read_told(folder)) == [
        "wrong: Group 1 was lost after update 4: process 2 was killed.",
        "well: Group 1 came back after update 8, as group 0 was then.",
    ]


def test_learners_that_were_lost_are_named(tmp_path: Path) -> None:
    metrics = [taken(5, 1.0, [2], l0=[1]), taken(6, 1.1, [], l0=[1]), taken(7, 1.2, [0, 1], l0=[1])]
    (line,) = said(lost_verdict, read_told(folder_of(tmp_path, SERVED, metrics)))
    assert line == "wrong: Lost: learner 2 by update 5, learner 0 by update 7 and learner 1 by update 7."


@pytest.mark.parametrize("why", ["", "enough"])
def test_who_stopped_it_is_named(tmp_path: Path, why: str) -> None:
    folder = folder_of(tmp_path, metrics=METRICS[:2])
    stopped = {"stopped": {"by": "At", "asked_at": 4, "why": why}}
    (folder / "summary.json").write_text(json.dumps(SUMMARY | stopped))
    told = f" ({why})" if why else ""
    assert said(ending_verdict, read_told(folder)) == [f"well: Stopped by At at version 10{told}."]
