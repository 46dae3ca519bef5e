import pytest

from benchmarks.precision_loss import row


def test_what_something_changes_is_held_against_what_another_seed_changes() -> None:
    made = row([(3.0, 2.0), (3.4, 2.2)], {"bf16": [(3.1, 2.0), (3.4, 1.6)], "compiled": [(3.0, 2.1)] * 2}, [True, True])
    within, compiled, equal = made.ratios
    # Seeds are 0.4 and 0.2 apart, 0.3 in the mean.
    assert within.values == pytest.approx((0.1 / 0.3, 0.6 / 0.3))
    assert within.reached is False
    assert compiled.values == pytest.approx((0.1 / 0.3, 0.4 / 0.3))
    assert equal.reached is True
    assert made.figures["K=2, bf16, last test loss"] == [2.0, 1.6]
    assert made.figures["bf16, largest gap of the two curves of a seed"] == pytest.approx([0.1, 0.6])


def test_a_curve_that_is_not_the_simulators_is_seen() -> None:
    (*_, equal) = row([(3.0,), (2.0,)], {"bf16": [(3.0,), (2.0,)]}, [True, False]).ratios
    assert equal.values == (0.5,)
    assert equal.reached is False
