"""Processes that cannot work together are refused as they meet, by name."""

from dataclasses import replace
from pathlib import Path

import pytest

from stalegrid.engines.distributed.greeting import Greeting, check_alike, digest
from stalegrid.engines.distributed.interfaces import Interface
from stalegrid.errors import ConfigError, ProtocolError

HERE = replace(Greeting.here(Interface("eth0", "10.0.0.1", False), "a number", 5), host="a")
THERE = replace(HERE, host="b", address="10.0.0.2")


def test_what_a_process_says_is_read_by_the_others() -> None:
    assert Greeting.all([HERE.text(), THERE.text()]) == [HERE, THERE]
    check_alike([HERE, THERE])


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"torch": "2.8.0"},
            f"processes have different versions (process 0 on a: stalegrid {HERE.stalegrid}, torch {HERE.torch}; "
            f"process 1 on b: stalegrid {HERE.stalegrid}, torch 2.8.0); install the same on all hosts; ",
        ),
        ({"stalegrid": "9.9"}, "process 1 on b: stalegrid 9.9, torch"),
        ({"code": "0"}, "processes have different files of stalegrid (process 0 on a: digest"),
        (
            {"interface": "lo", "address": "127.0.1.1"},
            "processes have different sorts of interfaces (process 0 on a: eth0 10.0.0.1; process 1 on b: lo "
            "127.0.1.1); let the address of the first process be one that all hosts reach, or name it in GLOO_",
        ),
    ],
)
def test_who_differs_is_named_with_what_to_change(changes: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        check_alike([HERE, replace(THERE, **changes)])
    assert told in str(caught.value)


def test_another_python_and_another_device_of_torch_are_no_reason() -> None:
    check_alike([HERE, replace(THERE, python="3.12.0")])
    assert "+" not in HERE.torch


@pytest.mark.parametrize("text", ["", "[]", '{"host": "a"}', HERE.text().replace('"5"', "5"), "[" * 100_000])
def test_whoever_says_something_else_is_refused(text: str) -> None:
    with pytest.raises(ProtocolError, match="process 1 does not say what it is"):
        Greeting.all([HERE.text(), text])


def test_a_digest_is_of_names_and_contents(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text("1")
    (tmp_path / "a.txt").write_text("1")
    first = digest(tmp_path)
    (tmp_path / "a.txt").write_text("2")
    assert digest(tmp_path) == first
    (tmp_path / "a.py").write_text("2")
    second = digest(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, digest(tmp_path)}) == 3
