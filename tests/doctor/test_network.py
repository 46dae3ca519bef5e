"""Hosts that cannot find each other, or have no secret in common, are named."""

from typing import Any

import pytest

from stalegrid.doctor.network import look, rows
from stalegrid.engines.distributed.greeting import Greeting
from stalegrid.engines.distributed.interfaces import Interface
from tests.doctor.hosts import hosts

SECRET = "a long random text"


def told(monkeypatch: pytest.MonkeyPatch, **environment: str) -> dict[str, Any]:
    for name in ("STALEGRID_SECRET", "STALEGRID_SECRET_FILE", "MASTER_ADDR"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"STALEGRID_SECRET": SECRET, "MASTER_ADDR": "192.0.2.1", **environment}.items():
        monkeypatch.setenv(name, value)
    found = look(Greeting.here(Interface("eth0", "192.0.2.1", False)), b"drawn")
    return {**found, "own": "192.0.2.1"}


def test_hosts_that_find_each_other_are_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(hosts(told(monkeypatch), {}, {}))
    assert [row.what for row in found] == ["listens on", "first host", "own name", "secret"]
    assert not any(row.needed or row.advised for row in found)


@pytest.mark.parametrize(
    ("changes", "what", "sentence"),
    [
        ({"address": "127.0.0.1"}, "listens on", "b: nobody comes to a loopback interface from elsewhere; name"),
        ({"leads": "127.0.1.1"}, "first host", "b: the first host's name leads to loopback; start with --master-addr"),
        ({"secret": ""}, "secret", "b: has no secret; set STALEGRID_SECRET to the same long random text for all"),
        ({"secret": "another"}, "secret", "b: another secret than that of a; set STALEGRID_SECRET"),
    ],
)
def test_who_is_not_found_is_named_with_what_to_change(
    changes: dict[str, str], what: str, sentence: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (row,) = (row for row in rows(hosts(told(monkeypatch), {}, changes)) if row.needed)
    assert row.what == what
    assert row.needed[0].startswith(sentence)


@pytest.mark.parametrize("own", ["", "127.0.1.1"])
def test_a_hosts_name_that_leads_to_itself_is_noted(own: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = (row for row in rows(hosts(told(monkeypatch), {}, {"own": own})) if row.advised)
    assert row.advised[0].endswith("--local-addr ADDRESS --rdzv-conf is_host=1 (elsewhere 0)")
    assert not row.needed


def test_a_secret_is_shown_by_nobody_and_equal_where_it_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    one = told(monkeypatch)
    assert SECRET not in str(one)
    assert told(monkeypatch)["secret"] == one["secret"]
    assert told(monkeypatch, STALEGRID_SECRET=f"{SECRET}, another")["secret"] != one["secret"]
    short = told(monkeypatch, STALEGRID_SECRET="short")
    (row,) = (row for row in rows(hosts(one, {}, {**short, "secret": ""})) if row.needed)
    assert "a secret that short can be guessed" in row.needed[0]


def test_one_host_alone_needs_none_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    found = rows(hosts({**told(monkeypatch), "address": "127.0.0.1", "secret": "", "own": ""}, {}))
    assert [row.what for row in found] == ["listens on", "own name"]
    assert not any(row.needed or row.advised for row in found)
