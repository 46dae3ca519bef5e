"""What TensorBoard is told of a run."""

from pathlib import Path

import pytest

from stalegrid.observe.tensorboard import TensorBoard
from tests.observe.test_summed import seen


def test_what_was_measured_is_drawn_and_what_was_not_is_left_out(tmp_path: Path) -> None:
    events = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    board = TensorBoard(tmp_path)
    board.start({})
    units = {"(0,0)": {**seen([0, 2], 0.5, 0.75, held=8), "mean": 1.0}, "(0,1)": {**seen([2]), "mean": 0.0}}
    board.log({"kind": "train", "update": 3, "loss": 2.0, "train_accuracy": None, "lr": 0.5, "staleness": units})
    board.log({"kind": "test", "version": 3, "test_loss": 1.5, "test_recall": 0.25, "test_hole": None})
    board.finish({})
    found = events.EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    drawn = {tag: [(e.step, e.value) for e in found.Scalars(tag)] for tag in found.Tags()["scalars"]}
    assert drawn == {
        "train/loss": [(3, 2.0)],
        "train/lr": [(3, 0.5)],
        "staleness/(0,0)": [(3, 1.0)],
        "gap/(0,0)": [(3, 0.5)],
        "held/(0,0)": [(3, 8.0)],
        "staleness/(0,1)": [(3, 0.0)],
        "held/(0,1)": [(3, 0.0)],
        "test/test_loss": [(3, 1.5)],
        "test/test_recall": [(3, 0.25)],
    }
