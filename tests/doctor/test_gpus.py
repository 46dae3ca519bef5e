"""Hosts whose GPUs are not used, or are others, are named."""

from typing import Any

import pytest

from stalegrid.doctor.gpus import look, rows
from tests.doctor.hosts import hosts

NONE: dict[str, Any] = {"gpus": [], "driver": False, "build": None, "nccl": ""}
SOME: dict[str, Any] = {"gpus": ["H100", "H100"], "driver": True, "build": "12.6", "nccl": "2.27.3"}


def test_this_host_tells_what_it_has() -> None:
    assert look().keys() == NONE.keys()


def test_hosts_without_gpus_or_with_the_same_are_fine() -> None:
    assert [(row.what, row.found) for row in rows(hosts(NONE, {}, {}))] == [("GPUs", "none")]
    found = rows(hosts(SOME, {}, {}))
    assert [(row.what, row.found) for row in found] == [("GPUs", "2 x H100"), ("NCCL", "2.27.3")]
    assert not any(row.needed or row.advised for row in found)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"gpus": []}, "b: has GPUs, and torch sees none: install a build of torch for its driver"),
        ({"gpus": ["H100"]}, "b: more processes than GPUs, which they share then"),
        ({**NONE}, "name the device: --device auto takes what each host has (a: GPUs; b: none)"),
    ],
)
def test_gpus_that_are_missing_are_noted(changes: dict[str, Any], told: str) -> None:
    found = rows(hosts(SOME, {}, changes))
    assert not any(row.needed for row in found)
    assert any(line.startswith(told) for row in found for line in row.advised)


def test_another_nccl_has_to_be_changed() -> None:
    (row,) = (row for row in rows(hosts(SOME, {}, {"nccl": "2.10.3"})) if row.needed)
    assert row.needed == ("install the same NCCL, that is the same build of torch (a: 2.27.3; b: 2.10.3)",)
