"""Hosts that run something else are named."""

import pytest

from stalegrid.doctor.software import look, rows
from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.interfaces import Interface
from tests.doctor.hosts import hosts

TOLD = look(Greeting.here(Interface("lo", "127.0.0.1", True)))


def test_hosts_that_run_the_same_are_fine() -> None:
    found = rows(hosts(TOLD, {}, {"build": "2.13.0+cu126"}))
    assert not any(row.needed or row.advised for row in found)
    assert found[0].found == TOLD["python"]


@pytest.mark.parametrize(
    ("name", "value", "what", "told"),
    [
        ("torch", "2.8.0", "torch", "install the same torch on all hosts: a run is refused (a, c: "),
        ("stalegrid", "9", "stalegrid", "install the same stalegrid on all hosts: a run is refused (a, c: "),
        ("code", "0" * 16, "stalegrid", "install stalegrid from the same files: a run is refused (a, c: "),
        ("switches", "{}", "torch", "let switches of torch, such as TF32, be set alike on all hosts"),
    ],
)
def test_what_a_run_is_refused_for_has_to_be_changed(name: str, value: str, what: str, told: str) -> None:
    (row,) = (row for row in rows(hosts(TOLD, {}, {name: value}, {})) if row.needed)
    assert row.what == what
    assert row.needed[0].startswith(told)
    assert row.needed[0].endswith(f"; b: {value})")


@pytest.mark.parametrize(
    ("name", "value", "noted"), [("python", "3.99.1", True), ("arithmetic", "none", True), ("python", "same", False)]
)
def test_what_a_run_may_do_without_is_noted(name: str, value: str, noted: bool) -> None:
    if value == "same":  # but for its last number
        value = f"{TOLD['python'].rpartition('.')[0]}.99"
    found = rows(hosts(TOLD, {}, {name: value}))
    assert not any(row.needed for row in found)
    assert [bool(row.advised) for row in found if row.advised] == [True] * noted
