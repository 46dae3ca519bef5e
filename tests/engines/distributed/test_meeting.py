"""A wait for processes that do not come ends, says who is missing, and hears signals."""

import ctypes
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest
import torch.distributed as dist

from stalegrid.engines.distributed import meeting
from stalegrid.engines.distributed.interfaces import loopback
from stalegrid.engines.distributed.meeting import Met, Reach, all_there, attended, meet, part, patience_of
from stalegrid.errors import ConfigError, DeadlineExceeded, EngineError

NEW_NETWORK = 0x40000000  # of unshare(2)


def reaching(size: int, *there: int) -> Reach:
    """Reach a place to which some come too, who give up earlier."""
    store = dist.HashStore()

    def come(rank: int) -> None:
        with suppress(DeadlineExceeded):
            meet(lambda: (store, rank, size), 0.1, "a test")

    for rank in there:
        threading.Thread(target=come, args=(rank,)).start()
    return lambda: (store, 0, size)


def gathered(store: dist.Store, *ranks: int) -> dict[int, Met]:
    """Let processes of a world of two gather, one after another; return where each then is."""
    found: dict[int, Met] = {}

    def come(rank: int) -> None:
        found[rank] = all_there(lambda: (store, rank, 2), 10.0, "a test", lambda: f"this is {rank}")

    threads = [threading.Thread(target=come, args=(rank,)) for rank in ranks]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    return found


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_who_was_started_again_meets_who_was_not(order: tuple[int, int]) -> None:
    store = dist.HashStore()
    store.set("stalegrid/meeting", "one that somebody has died in")
    dist.PrefixStore("stalegrid/one that somebody has died in", store).set("came/0", "1")
    for turn in range(3):  # as a second or third run of one script, or a restart, does
        found = gathered(store, *order)
        assert set(found) == {0, 1}, turn
        found[0].store.set("word", str(turn))
        assert found[1].store.get("word") == str(turn).encode()
        assert [met.said for met in found.values()] == [["this is 0", "this is 1"]] * 2


@pytest.mark.parametrize(("there", "missing"), [((), "1, 2, 3"), ((2,), "1, 3")])
def test_who_does_not_come_is_named(there: tuple[int, ...], missing: str) -> None:
    told = f"process {missing} of 4 has not come: process 0 waits at a test, for 0.3 s"
    with pytest.raises(DeadlineExceeded, match=f"^{told}$"):
        meet(reaching(4, *there), 0.3, "a test")


def test_it_is_told_again_and_again_who_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(meeting, "TOLD", 0.1)
    with pytest.raises(DeadlineExceeded):
        meet(reaching(2), 0.5, "a test")
    said = capsys.readouterr().err.splitlines()
    assert len(said) > 1
    assert all(line.startswith("stalegrid: process 1 of 2 has not come: process 0 waits at a test") for line in said)


def test_a_place_that_cannot_be_reached_is_named() -> None:
    over = threading.Event()

    def reach() -> tuple[dist.Store, int, int]:
        over.wait()
        raise OSError("too late")

    with pytest.raises(DeadlineExceeded, match=r"nothing answers at host\.invalid:1, for 0\.3 s"):
        meet(reach, 0.3, "host.invalid:1")
    over.set()


def test_what_goes_wrong_on_the_way_is_an_error_of_the_engine() -> None:
    def reach() -> tuple[dist.Store, int, int]:
        raise RuntimeError("the name does not resolve")

    with pytest.raises(EngineError, match="this process cannot meet the others: the name does not resolve"):
        meet(reach, 10.0, "a test")


def test_an_interrupt_ends_the_wait_though_what_is_waited_for_hangs() -> None:
    over = threading.Event()

    def reach() -> tuple[dist.Store, int, int]:
        os.kill(os.getpid(), signal.SIGINT)
        over.wait()
        raise OSError("too late")

    old = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            meet(reach, 100.0, "a test")
    finally:
        signal.signal(signal.SIGINT, old)
        over.set()


def test_starting_has_a_patience_of_its_own() -> None:
    assert patience_of(1.0) == meeting.START
    assert patience_of(2 * meeting.START) == 2 * meeting.START


def test_a_loopback_interface_that_is_up_is_found() -> None:
    assert loopback() in os.listdir("/sys/class/net")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may make a network in which loopback is down")
def test_a_loopback_interface_that_is_down_is_told(tmp_path: Path) -> None:
    child = os.fork()
    if not child:
        try:
            alone = ctypes.CDLL(None).unshare(NEW_NETWORK) == 0
            loopback()
            said = "it is up" if alone else "no network can be made"
        except ConfigError as error:
            said = str(error)
        (tmp_path / "said").write_text(said)
        os._exit(0)
    os.waitpid(child, 0)
    said = (tmp_path / "said").read_text()
    if said == "no network can be made":
        pytest.skip(said)
    assert said.startswith("processes of one host meet on its loopback interface, which is down (127.0.0.1: ")


def test_a_wait_that_a_signal_ends_as_it_begins_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    started: list[threading.Thread] = []

    class Interrupted(threading.Thread):
        def start(self) -> None:
            super().start()
            started.append(self)
            raise KeyboardInterrupt

    monkeypatch.setattr(meeting, "Thread", Interrupted)
    with pytest.raises(KeyboardInterrupt):
        meet(reaching(2), 60.0, "a test")
    started[0].join(30.0)
    assert not started[0].is_alive()


def test_a_process_that_is_refused_tells_all_why_before_the_first_ends_and_its_store_with_it() -> None:
    store, told = dist.HashStore(), {}

    def refuse(met: Met, steps: object, over: object) -> None:
        raise ConfigError(f"refused: {met.said}")

    def come(rank: int) -> None:
        try:
            meet(lambda: (store, rank, 2), 10.0, "a test", lambda: str(rank), refuse)
        except ConfigError as error:
            told[rank] = str(error)

    threads = [threading.Thread(target=come, args=(rank,)) for rank in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10.0)
    assert told == dict.fromkeys(range(2), "refused: ['0', '1']")


def test_who_has_not_told_is_waited_for_no_longer_than_the_patience() -> None:
    met = all_there(lambda: (dist.HashStore(), 0, 1), 10.0, "a test", lambda: "here")
    wait = "has not told: process 0 waits"
    with pytest.raises(DeadlineExceeded, match=r"^process 1, 2 has not told: process 0 waits at a test, for 0\.3 s$"):
        attended(
            lambda steps, over: meeting.await_keys(met.store, {"a": "process 1", "b": "process 2"}, wait, steps, over),
            0.3,
            "a test",
        )
    part(met, threading.Event())
