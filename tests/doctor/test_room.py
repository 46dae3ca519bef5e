"""Hosts without room for their processes are named."""

from typing import Any

import pytest

from stalegrid.doctor.room import look, rows
from tests.doctor.hosts import hosts

TOLD: dict[str, Any] = {"memory": 8e9, "shared": 4e9, "files": 4096, "processors": 4.0, "folder": ""}


def test_this_host_tells_what_it_has() -> None:
    found = look()
    assert found.keys() == TOLD.keys()
    assert found["memory"] > 0
    assert found["processors"] > 0


@pytest.mark.parametrize(
    ("changes", "what", "told"),
    [
        ({"memory": 0.9e9}, "memory free", "b: too little memory for its processes, which take 0.5 GB each"),
        ({"files": 64}, "open files", "b: a process may open too few files (68 are due); ulimit -n 4096"),
        ({"folder": "others could"}, "private folder", "b: others could"),
    ],
)
def test_what_is_too_little_has_to_be_changed(changes: dict[str, Any], what: str, told: str) -> None:
    (row,) = (row for row in rows(hosts(TOLD, {}, changes, processes=1 if "files" in changes else 2)) if row.needed)
    assert row.what == what
    assert row.needed[0].startswith(told)


@pytest.mark.parametrize(("changes", "what"), [({"shared": 64e6}, "shared memory free"), ({"processors": 1.5}, "proc")])
def test_what_only_some_runs_need_is_noted(changes: dict[str, Any], what: str) -> None:
    (row,) = (row for row in rows(hosts(TOLD, {}, changes)) if row.advised)
    assert row.what.startswith(what)
    assert row.advised[0].startswith("b: ")


def test_what_is_unknown_or_enough_is_fine() -> None:
    found = rows(hosts(TOLD, {}, {"memory": None, "shared": None, "files": -1}))
    assert not any(row.needed or row.advised for row in found)


def test_a_folder_that_others_can_reach_is_told(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    (shared := tmp_path / "shared").mkdir()
    shared.chmod(0o777)
    monkeypatch.setattr("tempfile.tempdir", str(shared))
    assert "others could replace the files of a run" in look()["folder"]
