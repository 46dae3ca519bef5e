from stalegrid.observe.numbers import Numbers, over_units
from stalegrid.observe.scalars import scalars

TOLD = {"(0,0)": {"rho": 0.5, "rate": None}, "(1,0)": {"rho": 1.0, "rate": None}}


def test_what_no_unit_has_measured_has_no_mean() -> None:
    assert over_units(TOLD) == {"rho": 0.75}
    assert over_units({}) == {}


def test_a_run_has_the_means_of_its_reports() -> None:
    numbers = Numbers()
    assert numbers.record() == {}
    for record in ({"told": TOLD}, {}, {"told": {"(0,0)": {"rho": -0.25, "rate": 2.0}}}):
        numbers.add(record)
    assert numbers.record() == {"told": {"rho": 0.25, "rate": 2.0}}


def test_they_are_curves() -> None:
    report = {"kind": "train", "loss": 1.0, "train_accuracy": None, "lr": 0.1, "staleness": {}, "told": TOLD}
    assert scalars(report) == {"train/loss": 1.0, "train/lr": 0.1, "rho/(0,0)": 0.5, "rho/(1,0)": 1.0}
