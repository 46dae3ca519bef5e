"""How the staleness of reports is summed for a summary."""

import pytest

from stalegrid.observe.records import Record, Report
from stalegrid.observe.summed import Summed


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
