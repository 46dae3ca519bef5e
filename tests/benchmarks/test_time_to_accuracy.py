from pathlib import Path

import pytest

from benchmarks import cuda, time_to_accuracy
from benchmarks.cifar import cifar10
from benchmarks.measure import Skipped

ENOUGH, SHORT = time_to_accuracy.TARGET + 0.01, time_to_accuracy.TARGET - 0.01


def test_the_time_is_that_of_the_first_evaluation_that_shows_the_accuracy() -> None:
    curves = {
        time_to_accuracy.ONE: [{10.0: SHORT, 20.0: ENOUGH, 30.0: SHORT, 40.0: ENOUGH}, {10.0: SHORT, 50.0: ENOUGH}],
        time_to_accuracy.DDP: [{8.0: ENOUGH, 9.0: ENOUGH}, {12.0: ENOUGH}],
        "S=2": [{5.0: ENOUGH}, {10.0: ENOUGH}],
    }
    row = time_to_accuracy._row(curves, [])
    assert row.figures["one process, two threads, s to 60%"] == [20.0, 50.0]
    assert row.figures["one process, two threads, s for all epochs"] == [40.0, 50.0]
    assert row.figures["one process, two threads, last accuracy"] == [ENOUGH, ENOUGH]
    assert [ratio.values for ratio in row.ratios] == [(4.0, 5.0), (1.6, 1.2)]
    assert not row.notes


def test_who_misses_the_accuracy_is_named_and_not_compared() -> None:
    curves = {time_to_accuracy.ONE: [{1.0: ENOUGH}] * 2, "S=2": [{1.0: ENOUGH}, {1.0: SHORT}]}
    row = time_to_accuracy._row(curves, ["before"])
    assert row.notes == ["before", "S=2: 1 of 2 seeds did not reach 60%"]
    assert not row.ratios
    assert "S=2, s to 60%" not in row.figures
    assert row.figures["S=2, last accuracy"] == [ENOUGH, SHORT]


def test_data_that_is_not_there_skips_the_row(tmp_path: Path) -> None:
    with pytest.raises(Skipped, match="needs CIFAR-10"):
        cifar10(tmp_path, 0)


def test_without_a_gpu_its_row_is_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda.torch.cuda, "is_available", lambda: False)
    with pytest.raises(Skipped, match="needs a GPU"):
        cuda.run(5)
