"""Which evaluation was the best."""

import math

from stalegrid.observe.best import Best


def taken(asked: str, *values: float | None) -> list[bool]:
    best = Best(asked)
    return [best.takes({"version": n, best.name: value}) for n, value in enumerate(values)]


def test_the_largest_is_best_and_with_a_minus_the_smallest() -> None:
    assert taken("test_accuracy", 0.5, 0.25, 0.75, 0.75) == [True, False, True, False]
    assert taken("-test_loss", 0.5, 0.25, 0.75, 0.25) == [True, True, False, False]


def test_what_is_no_number_is_never_best() -> None:
    assert taken("-test_loss", None, math.nan, 3.0, None, 2.0) == [False, False, True, False, True]


def test_it_says_of_which_version_it_is() -> None:
    best = Best("-test_loss")
    assert best.record == {}
    best.takes({"version": 4, "test_loss": 2.0, "epoch": 1.0})
    best.takes({"version": 8, "test_loss": 3.0})
    assert best.record == {"version": 4, "test_loss": 2.0}
