import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import NonFiniteLoss
from stalegrid.grid import Unit
from stalegrid.messages import layout_of
from stalegrid.observe.records import REPORT_LAYOUT, Loss, Report, Tally, count_correct

UNIT = Unit(1, 2)


def loss(value: float, samples: int = 4, correct: float = 3.0) -> Loss:
    return Loss(samples, torch.tensor(value, dtype=torch.float64), torch.tensor(correct))


@settings(deadline=None)
@given(values=st.lists(st.floats(allow_nan=False), min_size=8, max_size=8))
def test_a_report_travels_as_a_vector(values: list[float]) -> None:
    report = Report(*values)
    vector = report.vector()
    assert layout_of([vector]) == REPORT_LAYOUT
    assert Report.read(vector) == report


def test_a_tally_sums_until_it_is_closed_and_starts_anew() -> None:
    tally = Tally(UNIT)
    tally.used(0, version=0, staleness=0, loss=loss(2.0, samples=4, correct=1.0))
    tally.used(1, version=1, staleness=3, loss=loss(0.5, samples=2, correct=2.0))
    tally.used(2, version=2, staleness=1, loss=None)
    assert tally.close(lr=0.25) == Report(
        lr=0.25,
        backwards=3,
        staleness_sum=4,
        staleness_max=3,
        losses=2,
        samples=6,
        loss_sum=2.5,
        correct=3,
    )
    tally.used(3, version=3, staleness=2, loss=loss(1.0))
    assert tally.close(lr=0.5) == Report(0.5, 1, 2, 2, 1, 4, 1.0, 3.0)
    assert tally.close(lr=0.5) == Report(lr=0.5)


def test_losses_are_read_late() -> None:
    tally = Tally(UNIT)
    value = torch.tensor(1.0)
    tally.used(0, 0, 0, Loss(1, value, torch.tensor(0.0)))
    value.fill_(2.0)
    assert tally.close(0.1).loss_sum == 2.0


def test_checking_counts_a_loss_once() -> None:
    tally = Tally(UNIT)
    tally.used(0, 0, 0, loss(2.0))
    tally.check()
    tally.check()
    assert tally.close(0.1).losses == 1


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_a_loss_that_is_not_finite_is_an_error_with_its_place(bad: float) -> None:
    tally = Tally(UNIT)
    tally.used(6, version=4, staleness=2, loss=loss(1.0))
    tally.used(7, version=5, staleness=2, loss=loss(bad))
    with pytest.raises(NonFiniteLoss, match=rf"the loss is {bad} \(unit: \(1,2\), batch: 7, version: 5\)"):
        tally.close(0.1)


def test_unknown_accuracy_makes_the_sum_unknown() -> None:
    tally = Tally(UNIT)
    tally.used(0, 0, 0, loss(1.0))
    tally.used(1, 1, 0, loss(1.0, correct=math.nan))
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
