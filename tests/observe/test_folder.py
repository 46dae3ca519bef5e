"""What the files of a run say, at any moment."""

import json
import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from stalegrid.observe.folder import BEST, METRICS, MODEL, SUMMARY, UNSAVED, Folder
from stalegrid.report.models import interrupted_whole
from tests.observe.test_summed import seen


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


class Counting(nn.Module):
    """A model that has the number of its version, in its state and outside of it."""

    def __init__(self, version: int) -> None:
        super().__init__()
        self.saved = nn.Parameter(torch.tensor(float(version)))
        self.register_buffer("left_out", torch.tensor(version), persistent=False)


def versions(folder: Path) -> set[int]:
    """Return what all files say that an evaluation has written."""
    summary = json.loads((folder / SUMMARY).read_text())
    found = {summary["version"], summary["best"]["version"], int(load_file(folder / UNSAVED)["left_out"])}
    for name in (MODEL, BEST):
        with safe_open(folder / name, framework="pt") as file:
            found |= {int(file.metadata()["version"]), int(file.get_tensor("saved"))}
    return found


@pytest.mark.parametrize("evaluations", [0, 1])
def test_at_whatever_moment_it_is_interrupted_the_summary_is_that_of_the_models(
    evaluations: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    do, whole = os.replace, set()
    for at in range(1, 8):
        run = tmp_path / str(at)
        run.mkdir()
        folder = Folder(run, {}, best="test_accuracy")
        for version in range(1, 1 + evaluations):
            folder.evaluation({"version": version, "test_accuracy": float(version)}, Counting(version))
        left = at

        def interrupted(*paths: Path) -> None:
            nonlocal left
            left -= 1
            if not left:
                raise KeyboardInterrupt
            do(*paths)

        with monkeypatch.context() as patched:
            patched.setattr("stalegrid.written.files.os.replace", interrupted)
            last = 1 + evaluations
            ended = False
            with suppress(KeyboardInterrupt):
                folder.evaluation({"version": last, "test_accuracy": float(last)}, Counting(last))
                ended = True
        folder.close()
        if ended:
            break
        if (run / SUMMARY).exists() and json.loads((run / SUMMARY).read_text())["version"] == last:
            assert versions(run) == {last}  # also for who reads without more
        assert interrupted_whole(run) == (evaluations > 0 or at > 1)
        if interrupted_whole(run):
            (found,) = versions(run)
            whole.add(found)
    assert whole == set(range(1, 2 + evaluations))


def test_a_summary_alone_is_not_whole(tmp_path: Path) -> None:
    assert not interrupted_whole(tmp_path)
    (tmp_path / SUMMARY).write_text('{"version": 1}')
    assert not interrupted_whole(tmp_path)
