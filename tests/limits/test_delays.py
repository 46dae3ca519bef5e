"""How late forwards are, by schedule and view."""

from dataclasses import replace

import pytest

from stalegrid.limits.delays import delays, factor
from stalegrid.programs import gpipe, one_f_one_b, stale
from stalegrid.stability import Late, Momentum, delayed_limit
from stalegrid.stages import VIEWS, Stashed


@pytest.mark.parametrize("view", ["stashed", "current", "corrected"])
def test_a_stage_is_as_late_as_its_staleness(view: str) -> None:
    schedule = stale([4, 2, 0])
    assert [delays(schedule, VIEWS[view], k) for k in range(3)] == [(Late(m, 1.0),) for m in (4, 2, 0)]


def test_micro_batches_are_late_each_by_itself() -> None:
    assert delays(stale([3, 0], 4), VIEWS["stashed"], 0) == (Late(0, 0.25), Late(1, 0.75))
    assert delays(stale([5, 0], 4), VIEWS["stashed"], 0) == (Late(1, 0.75), Late(2, 0.25))


def test_a_double_buffer_is_late_by_one_update() -> None:
    assert delays(stale([3, 2, 1, 0], 4), VIEWS["stashed"], 3) == (Late(0, 1.0),)
    schedule = replace(stale([3, 2, 1, 0], 4), delay=1)
    assert all(delays(schedule, VIEWS["double-buffered"], k) == (Late(1, 1.0),) for k in range(4))


@pytest.mark.parametrize("schedule", [gpipe(3, 4), one_f_one_b(3, 4)], ids=["gpipe", "1f1b"])
def test_a_flush_leaves_nothing_late(schedule: object) -> None:
    for view in VIEWS.values():
        assert all(delays(schedule, view, k) == (Late(0, 1.0),) for k in range(3))  # type: ignore[arg-type]


def test_predicted_forwards_are_ahead() -> None:
    schedule = stale([4, 3, 2, 1, 0])
    assert [delays(schedule, VIEWS["predicted"], k)[0] for k in (0, 4)] == [
        Late(4, 1.0, 4),
        Late(0, 1.0),
    ]
    # As in SpecTrain: floor(k / 2) further, up to when the first stage uses the batch.
    twice = [delays(schedule, VIEWS["predicted-twice"], k)[0].ahead for k in range(5)]
    assert twice == [4, 3, 3, 2, 2]


def test_a_second_forward_of_the_last_stage_leaves_nothing_late() -> None:
    assert delays(stale([3, 2]), VIEWS["recomputed"], 1) == (Late(0, 1.0),)
    assert delays(stale([3, 2]), VIEWS["recomputed"], 0) == (Late(3, 1.0),)


def test_factors_are_shares_of_the_limit_of_what_is_not_late() -> None:
    for m in range(5):
        assert factor(stale([m, 0]), VIEWS["stashed"], 0, Momentum()) == pytest.approx(delayed_limit(m) / 2)
    assert factor(stale([1, 0]), VIEWS["stashed"], 0, Momentum(momentum=0.9)) == pytest.approx(0.1 / 3.8)
    assert factor(stale([1, 0]), VIEWS["predicted"], 0, Momentum()) is None
    assert factor(stale([1, 0]), type("Own", (Stashed,), {}), 0, Momentum()) is None
