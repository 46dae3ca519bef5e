"""A process that is ended leaves its contexts; whoever handles or ignores a signal keeps that."""

import signal
import threading
from collections.abc import Iterator

import pytest

from stalegrid.engines.signals import ENDING, ending_in_order


@pytest.fixture(autouse=True)
def _unhandled() -> Iterator[None]:
    """Let nobody handle these signals at first, as tests in the background of a script may not find it."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in ENDING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", ENDING)
def test_a_process_that_is_ended_leaves_its_contexts(number: signal.Signals) -> None:
    with pytest.raises(SystemExit) as left, ending_in_order():
        signal.raise_signal(number)
    assert left.value.code == 128 + number
    assert signal.getsignal(number) is signal.SIG_DFL


def test_handlers_of_others_and_ignored_signals_stay() -> None:
    heard: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with ending_in_order():
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGHUP)
    assert heard == [signal.SIGTERM]


def test_another_thread_than_the_main_one_changes_nothing() -> None:
    seen: list[object] = []

    def run() -> None:
        with ending_in_order():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.SIG_DFL]
