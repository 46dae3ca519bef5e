import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import NonFiniteLoss, TrainingError
from stalegrid.observe.records import Loss, Report, Tally, count_correct, summarise
from stalegrid.programs.grid import Unit
from stalegrid.programs.messages import layout_of

UNIT = Unit(1, 2)
BOUND = 3


def loss(value: float, samples: int = 4, correct: float = 3.0) -> Loss:
    return Loss(samples, torch.tensor(value, dtype=torch.float64), torch.tensor(correct))


def empty(lr: float) -> Report:
    return Report(lr=lr, histogram=[0.0] * (BOUND + 1))


@settings(deadline=None)
@given(
    values=st.lists(st.floats(allow_nan=False), min_size=12, max_size=12),
    histogram=st.lists(st.floats(allow_nan=False), min_size=1, max_size=9),
)
def test_a_report_travels_as_a_vector(values: list[float], histogram: list[float]) -> None:
    report = Report(*values, histogram)
    vector = report.vector()
    assert layout_of([vector]) == Report.layout(bound=len(histogram) - 1)
    assert Report.read(vector) == report


def test_a_tally_sums_until_it_is_closed_and_starts_anew() -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(0, version=0, forwarded=0, loss=loss(2.0, samples=4, correct=1.0))
    tally.used(1, version=4, forwarded=1, loss=loss(0.5, samples=2, correct=2.0))
    tally.used(2, version=4, forwarded=3, loss=None)
    tally.moved(torch.tensor(0.5))
    tally.moved(torch.tensor(0.25))
    tally.holding(100)
    tally.holding(70)
    tally.read(2**32 - 1)
    tally.read(2**32 - 3)
    assert tally.close(lr=0.25) == Report(
        lr=0.25,
        forwarded=3,
        applied=4,
        losses=1.5,
        samples=6,
        loss_sum=2.25,
        correct=3,
        gaps=2,
        gap_sum=0.75,
        gap_max=0.5,
        held=100,
        data=2**33 - 4,
        histogram=[1, 1, 0, 1],
    )
    tally.used(3, version=5, forwarded=3, loss=loss(1.0))
    tally.moved(torch.tensor(0.125))
    tally.holding(30)
    assert tally.close(lr=0.5) == Report(0.5, 3, 5, 1, 4, 1.0, 3.0, 1, 0.125, 0.125, 30, 0, [0, 0, 1, 0])
    assert tally.close(lr=0.5) == empty(lr=0.5)


def test_staleness_beyond_the_bound_has_no_place_in_the_histogram() -> None:
    with pytest.raises(IndexError):
        Tally(UNIT, 1).used(0, version=2, forwarded=0, loss=None)


def test_losses_and_gaps_are_read_late() -> None:
    tally = Tally(UNIT, BOUND)
    value, gap = torch.tensor(1.0), torch.tensor(1.0)
    tally.used(0, 0, 0, Loss(1, value, torch.tensor(0.0)))
    tally.moved(gap)
    value.fill_(2.0)
    gap.fill_(3.0)
    report = tally.close(0.1)
    assert (report.loss_sum, report.gap_sum) == (2.0, 3.0)


def test_checking_counts_a_loss_once() -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(0, 0, 0, loss(2.0))
    tally.check()
    tally.check()
    assert tally.close(0.1).losses == 1


def test_what_a_record_says_about_staleness() -> None:
    report = Report(
        lr=0.25, forwarded=2, applied=5, gaps=2, gap_sum=0.75, gap_max=0.5, held=1234, histogram=[1, 0, 2, 1]
    )
    assert report.staleness() == {
        "lr": 0.25,
        "mean": 7 / 4,
        "max": 3,
        "batches": 4,
        "histogram": [1, 0, 2, 1],
        "forwarded": 2,
        "applied": 5,
        "gap": 0.375,
        "gap_max": 0.5,
        "held": 1234,
    }


def test_a_gap_that_was_not_measured_is_none_unless_nothing_was_stale() -> None:
    seen = Report(histogram=[1, 3]).staleness()
    assert (seen["gap"], seen["gap_max"]) == (None, None)
    seen = Report(histogram=[4, 0]).staleness()
    assert (seen["gap"], seen["gap_max"]) == (0.0, 0.0)


def test_the_largest_staleness_is_one_that_occurred() -> None:
    assert Report(histogram=[2, 3, 0, 0]).staleness()["max"] == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_an_error_with_its_place(bad: float) -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(6, version=4, forwarded=2, loss=loss(1.0))
    tally.used(7, version=5, forwarded=3, loss=loss(bad))
    with pytest.raises(NonFiniteLoss, match=rf"the loss is {bad} \(unit: \(1,2\), batch: 7, version: 5\)"):
        tally.close(0.1)


def test_unknown_accuracy_makes_the_sum_unknown() -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(0, 0, 0, loss(1.0))
    tally.used(1, 1, 1, loss(1.0, correct=math.nan))
    assert math.isnan(tally.close(0.1).correct)


def test_correct_are_those_whose_largest_score_is_the_target() -> None:
    scores = torch.tensor([[0.1, 0.9, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 5.0], [1.0, 0.0, 0.5]])
    assert int(count_correct(scores, torch.tensor([1, 0, 2, 2]))) == 3


@pytest.mark.parametrize(
    ("outputs", "targets"),
    [
        (torch.zeros(4, 3), torch.zeros(4)),
        (torch.zeros(4, 3), torch.zeros(4, 3)),
        (torch.zeros(4), torch.zeros(4, dtype=torch.int64)),
        (torch.zeros(4, 3, 5, 5), torch.zeros(4, 5, 5, dtype=torch.int64)),
    ],
)
def test_what_are_no_class_scores_has_no_accuracy(outputs: torch.Tensor, targets: torch.Tensor) -> None:
    counted = count_correct(outputs, targets)
    assert counted.shape == ()
    assert math.isnan(counted)


def test_sums_count_what_they_say_and_a_mean_counts_one() -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(0, 0, 0, Loss(4, torch.tensor(6.0), torch.tensor(math.nan), torch.tensor(12)))
    tally.used(1, 0, 0, Loss(4, torch.tensor(3.0), torch.tensor(math.nan), 0.5))
    tally.used(2, 0, 0, loss(1.0))
    report = tally.close(0.1)
    assert (report.loss_sum, report.losses) == (10.0, 13.5)


def test_a_group_in_which_nothing_counted_has_no_loss_of_its_own() -> None:
    reports = {Unit(0, 0): Report(losses=4, loss_sum=2, samples=8), Unit(1, 0): Report(samples=8)}
    for report in reports.values():
        report.histogram = [1.0]
    record = summarise({unit: report.vector() for unit, report in reports.items()})
    assert record["loss"] == record["group_loss"][0] == 0.5
    assert math.isnan(record["group_loss"][1])


@pytest.mark.parametrize("counted", [0.0, -1.0, math.inf, math.nan])
def test_an_update_that_is_divided_by_nothing_is_told_before_what_comes_of_it(counted: float) -> None:
    tally = Tally(UNIT, BOUND)
    tally.used(7, version=5, forwarded=3, loss=loss(math.nan))
    tally.divided(4, torch.tensor([2.0]))
    tally.divided(5, torch.tensor([counted]))
    with pytest.raises(TrainingError, match=r"nothing is counted .* \(unit: \(1,2\), version: 5, count: "):
        tally.check()


def test_numbers_of_exchanges_travel_behind_the_report() -> None:
    reports = {Unit(s, 0): Report(losses=1, loss_sum=2, samples=8, histogram=[1.0]) for s in (0, 1)}
    told = {Unit(0, 0): [0.5, math.nan], Unit(1, 0): [-0.25, 3.0]}
    vectors = {u: torch.cat([r.vector(), torch.tensor(told[u], dtype=torch.float64)]) for u, r in reports.items()}
    assert layout_of([vectors[Unit(0, 0)]]) == Report.layout(0, 2)
    record = summarise(vectors, tells=("rho", "rate"))
    assert record["told"] == {"(0,0)": {"rho": 0.5, "rate": None}, "(1,0)": {"rho": -0.25, "rate": 3.0}}
    plain = summarise({unit: report.vector() for unit, report in reports.items()})
    assert plain == {name: value for name, value in record.items() if name != "told"}
