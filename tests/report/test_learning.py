"""Whether the loss fell, as the page says it."""

from pathlib import Path

import pytest

from stalegrid.report.learning import learning_verdict
from stalegrid.report.told import read_told
from tests.report.cases import evaluated, folder_of, reported, said, trained

SMALL = ("--stages", "2", "--groups", "1", "--schedule", "constant")


def test_a_loss_that_fell(tmp_path: Path) -> None:
    run = trained(tmp_path / "run", *SMALL, "--epochs", "1")
    first, last = run.train[0]["loss"], run.train[-1]["loss"]
    assert said(learning_verdict, run) == [f"well: The training loss fell from {first:.4g} to {last:.4g}."]


def test_a_loss_that_rose(tmp_path: Path) -> None:
    (line,) = said(learning_verdict, trained(tmp_path / "run", *SMALL, "--lr", "20", "--updates", "40"))
    assert line.startswith("wrong: The training loss rose from ")


@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        ([4.0, 1.0, 2.0], "well: The training loss fell from 4 to 2."),
        ([4.0, 1.0, 3.0], "wrong: The training loss gave back most of what it had won: from 4 to 1 at update 2, "),
        ([4.0, 1.0, 5.0], "wrong: The training loss rose from 4 to 5."),
        # Means of a tenth: 2 of 20.
        ([5.0, 3.0, *16 * [2.0], 1.0, 2.0], "well: The training loss fell from 4 to 1.5."),
    ],
)
def test_begin_and_end_decide(tmp_path: Path, losses: list[float], expected: str) -> None:
    metrics = [reported(i, float(i), loss) for i, loss in enumerate(losses, start=1)]
    (line,) = said(learning_verdict, read_told(folder_of(tmp_path, metrics=metrics)))
    assert line.startswith(expected)


def test_a_test_loss_that_is_no_number(tmp_path: Path) -> None:
    metrics = [reported(5, 1.0, 2.0), evaluated(5, 1.0, 0.5), evaluated(10, 2.0, 0.1, test_loss=None)]
    run = read_told(folder_of(tmp_path, metrics=metrics))
    assert said(learning_verdict, run) == ["wrong: The test loss is no number any more at epoch 2."]


def test_of_a_single_report_nothing_is_said(tmp_path: Path) -> None:
    assert said(learning_verdict, read_told(folder_of(tmp_path, metrics=[reported(5, 1.0, 2.0)]))) == []
