"""When early stopping asks for the end."""

import math
from typing import Any

import pytest
from torch import nn

from stalegrid.errors import ConfigError
from stalegrid.observe.callbacks import Stop
from stalegrid.observe.stopping import EarlyStopping


def asked(callback: EarlyStopping, *values: float | None) -> tuple[int, str] | None:
    """Return at which evaluation it asks, and why."""
    for n, value in enumerate(values):
        try:
            callback.on_evaluation({"version": 10 * n, "test_loss": value, "test_accuracy": value}, nn.Identity())
        except Stop as stop:
            return n, str(stop)
    return None


def test_it_has_patience_with_evaluations_that_are_no_better_in_turn() -> None:
    falling = EarlyStopping("-test_loss", patience=2)
    why = "test_loss was best at version 30, evaluations in vain: 2"
    assert asked(falling, 3.0, 2.0, 2.5, 1.5, 1.5, 1.5, 1.0) == (5, why)
    assert asked(EarlyStopping("-test_loss", patience=2), 3.0, 3.5, 2.5, 2.75, 2.0, 2.25) is None


def test_the_largest_may_be_best() -> None:
    assert asked(EarlyStopping("test_accuracy", patience=1), 0.5, 0.75, 0.5) == (
        2,
        "test_accuracy was best at version 10, evaluations in vain: 1",
    )


def test_a_better_one_must_be_so_by_a_difference() -> None:
    found = asked(EarlyStopping("-test_loss", patience=2, least=0.5), 3.0, 2.75, 2.5, 2.25)
    assert found == (2, "test_loss was best at version 0, evaluations in vain: 2")


@pytest.mark.parametrize("value", [None, math.nan])
def test_what_is_no_number_is_no_better(value: Any) -> None:
    never = "test_loss has never been a number, evaluations in vain: 2"
    assert asked(EarlyStopping("-test_loss", patience=2), value, value) == (1, never)
    assert asked(EarlyStopping("-test_loss", patience=2), math.inf, math.inf, 1.0, math.inf) is None


def test_numbers_that_have_no_meaning_are_refused() -> None:
    with pytest.raises(ConfigError, match="patience: 0"):
        EarlyStopping("-test_loss", patience=0)
    for least in (-1.0, math.inf, math.nan):
        with pytest.raises(ConfigError, match="a difference of 0 or more"):
            EarlyStopping("-test_loss", least=least)
