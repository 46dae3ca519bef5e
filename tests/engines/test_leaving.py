"""What is asked of a run beside what is planned: by time, and by signals."""

import signal

import pytest

from stalegrid.engines.leaving import Asks
from stalegrid.engines.signals import leaving_in_order
from stalegrid.programs import LEAVE, SAVE


def test_a_run_is_saved_when_so_many_minutes_have_passed_and_not_twice() -> None:
    clock = [0.0]
    asks = Asks(0.5, lambda: False, lambda: clock[0])
    found = []
    for clock[0] in (10.0, 29.0, 31.0, 40.0, 60.0, 61.5):
        found.append(asks.code())
    assert found == [0, 0, SAVE, 0, 0, SAVE]


def test_a_run_is_not_saved_again_before_it_was_but_leaves_all_the_same() -> None:
    clock = [0.0]
    asks = Asks(0.5, lambda: clock[0] > 100, lambda: clock[0])
    clock[0] = 31.0
    assert asks.code(ready=False) == 0
    assert asks.code() == SAVE
    clock[0] = 101.0
    assert asks.code(ready=False) == SAVE | LEAVE


def test_who_wants_to_leave_leaves_after_a_save() -> None:
    assert Asks(None, lambda: True).code() == SAVE | LEAVE
    assert Asks(None, lambda: False).code() == 0


@pytest.mark.parametrize("second", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_asks_and_a_later_one_ends(second: signal.Signals) -> None:
    clock, said = [0.0], []
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with leaving_in_order(said.append, lambda: clock[0]) as leaving:
            assert not leaving()
            signal.raise_signal(signal.SIGINT)
            clock[0] = 0.5
            signal.raise_signal(second)  # that of a launcher, which hands on what the terminal sent to all
            assert leaving()
            assert len(said) == 1
            clock[0] = 1.5
            with pytest.raises(KeyboardInterrupt):
                signal.raise_signal(second)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_who_ignores_a_signal_keeps_that() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with leaving_in_order(lambda line: None) as leaving:
            signal.raise_signal(signal.SIGTERM)
            assert not leaving()
    finally:
        signal.signal(signal.SIGTERM, before)
