"""Bytes travel whole, errors reach everybody, and who is silent is told from who is slow."""

import io
import json
import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

import stalegrid
from stalegrid.engines.distributed import talk
from stalegrid.errors import ConfigError
from tests.engines.distributed.forked import together

ENGINE = Path(stalegrid.__file__).parent / "engines" / "distributed"


def test_all_hear_what_each_made_in_the_order_of_ranks(tmp_path: Path) -> None:
    large = b"x" * (2 * talk._PIECE + 1)

    def act(rank: int) -> str:
        words = talk.gather(lambda: f"{rank}".encode(), 10.0)
        assert talk.spread(lambda: large, 10.0) == large
        tensors = [
            torch.full((2, 3), rank),
            torch.tensor(rank == 0),
            torch.full((3, 2), rank + 0.5).t(),
            torch.empty(0),
        ]
        talk.spread_tensors(tensors, 10.0)
        parts = talk.collect(f"{rank}".encode(), 1, 10.0)
        return json.dumps([b"".join(words).decode(), [t.tolist() for t in tensors], b"".join(parts).decode()])

    first = [[[0] * 3] * 2, True, [[0.5] * 3] * 2, []]
    assert [json.loads(said) for said in together(tmp_path, 3, act)] == [
        ["012", first, ""],
        ["012", first, "102"],
        ["012", first, ""],
    ]


def test_signs_of_life_around_a_work_are_not_taken_for_what_is_told_within_it(tmp_path: Path) -> None:
    told = b"content in small pieces " * 500

    def act(rank: int) -> str:
        talk._OFTEN, talk._PIECE = 0.001, 16  # a sign between any two pieces, each as large as a sign

        def work() -> None:
            assert talk.gather(lambda: told, 10.0) == [told, told]

        return talk.spread_after(work, lambda: b"the sum", 10.0).decode()

    assert together(tmp_path, 2, act) == ["the sum", "the sum"]


def test_an_error_of_the_work_stays_where_it_was_and_one_of_the_sum_reaches_all(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        def summary() -> bytes:
            raise ConfigError("there is no sum")

        return talk.spread_after(lambda: None, summary, 10.0).decode()

    assert together(tmp_path, 2, act) == ["ConfigError: there is no sum"] * 2


def test_what_is_too_much_to_collect_or_of_another_kind_is_left_out_and_told(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        sys.stderr = io.StringIO()
        if rank == 2:
            dist.send(torch.tensor([7, 8]), 0, tag=talk.TAG)
            return ""
        parts = talk.collect(bytes(rank * 9), 0, 10.0, limit=8)
        return json.dumps([len(parts), sys.stderr.getvalue().splitlines()])

    left_out = [
        "stalegrid: what process 1 noted is left out: it is too much to send (bytes: 9, at most: 8)",
        "stalegrid: what process 2 noted is left out: process 2 announced what was not due (kind: 7, bytes: 8)",
    ]
    assert [json.loads(said) for said in together(tmp_path, 3, act)[:2]] == [[1, left_out], [0, []]]


def test_an_error_of_one_is_raised_in_all_as_text_and_ours_keeps_its_class(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        def own() -> None:
            if rank == 1:
                raise ConfigError("it cannot be run (what: this)")

        def others() -> None:
            if rank == 0:
                raise OSError("no such thing")

        for make in (own, others):
            try:
                talk.everybody(make, 10.0)
            except Exception as error:
                said.append(f"{type(error).__name__}: {error}")
        return "\n".join(said)

    said: list[str] = []
    found = together(tmp_path, 2, act)
    assert {text.split("\n")[0] for text in found} == {"ConfigError: it cannot be run (what: this)"}
    assert [text.split("\n")[1] for text in found] == [
        "OSError: no such thing",
        "EngineError: process 0 failed: OSError: no such thing",
    ]


def test_who_is_slow_is_waited_for_and_who_is_stopped_is_named(tmp_path: Path) -> None:
    def act(rank: int) -> str:
        patience = 0.5

        def slowly() -> bytes:
            if rank == 1:
                time.sleep(3 * patience)  # much longer than the patience, with signs of life
            return b"%d" % os.getpid()

        second = int(talk.gather(slowly, patience)[1])
        if rank == 1:
            os.kill(second, signal.SIGSTOP)
        try:
            talk.gather(lambda: b"", patience)
        finally:
            os.kill(second, signal.SIGKILL)
        return "all went well"

    stopped = "process 1 is silent: process 0 has waited 0.5 s for a sign of life"
    assert together(tmp_path, 2, act) == [f"DeadlineExceeded: {stopped}", "nothing"]


@pytest.mark.parametrize(
    ("head", "told"),
    [([1, 1 << 40], "kind: 1, bytes: 1099511627776"), ([1, -1], "kind: 1, bytes: -1"), ([7, 8], "kind: 7, bytes: 8")],
)
def test_nothing_is_taken_that_is_announced_as_larger_than_what_is_due(
    head: list[int], told: str, tmp_path: Path
) -> None:
    def act(rank: int) -> str:
        if rank == 0:
            dist.send(torch.tensor(head), 1, tag=talk.TAG)
            return "announced"
        return talk.spread(bytes, 5.0).decode()

    assert together(tmp_path, 2, act)[1] == f"ProtocolError: process 0 announced what was not due ({told})"


def test_no_call_of_torch_that_unpickles_what_arrives_is_left() -> None:
    calls = re.compile(r"\w+_object(_list)?\(|\bmonitored_barrier\(")
    found = {path.name: calls.findall(path.read_text()) for path in ENGINE.glob("*.py")}
    assert len(found) > 10
    assert not any(found.values()), found
    # Pickled are files of this user alone: the job, and the errors of workers.
    users = {path.name for path in ENGINE.glob("*.py") if re.search(r"^import (cloud)?pickle", path.read_text(), re.M)}
    assert users == {"job.py", "launch.py", "packing.py", "parts.py", "worker.py"}
