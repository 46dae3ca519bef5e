"""Samples a second leave out the time to the first report, as soon as there is a second."""

from stalegrid.observe.rate import Rate


def test_the_first_report_is_measured_from_the_start_and_later_ones_from_the_first() -> None:
    rate = Rate(10.0)
    assert rate.after(100, 60.0) == 2.0
    assert rate.after(100, 61.0) == 100.0
    assert rate.after(300, 64.0) == 100.0
    assert rate.after(100, 65.0) == 100.0
    assert rate.after(500, 70.0) == 100.0
    assert rate.after(0, 80.0) == 50.0
