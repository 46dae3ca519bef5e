"""The record of deliveries: what is written is read, and what is no record is said to be none."""

import random
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import pytest

from stalegrid.engines.noting import noted
from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.deliveries import DELIVERIES, first_updates, read_order
from stalegrid.programs.grid import learner
from stalegrid.programs.messages import Message
from stalegrid.programs.serving import DOOR
from stalegrid.programs.softsync import Delivery, Rules

RULES = Rules(3, 1)
TWO = '{"learner": 1, "batch": 0, "version": 0, "clock": 0}\n{"gone": 0}\n'


class Nothing:
    """A server that does nothing."""

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        return []


def record(folder: Path, text: str) -> Path:
    path = folder / DELIVERIES
    path.write_text(text)
    return path


@pytest.mark.parametrize("seed", range(5))
def test_what_a_server_notes_is_the_order_that_is_read(tmp_path: Path, seed: int) -> None:
    draw, batches, order = random.Random(seed), Counter[int](), list[Delivery]()
    with noted({DOOR: Nothing()}, tmp_path) as agents:
        for k in range(30):
            number, gone = draw.randrange(3), draw.random() < 0.2
            order.append(Delivery(number, gone))
            if gone:
                agents[DOOR].step(Action(Kind.DROP, number), [])
                continue
            push = Tag(Edge("push", learner(number), DOOR), batches[number])
            batches[number] += 1
            agents[DOOR].step(Action(Kind.TAKE, k, (push,)), [Message(push, k // 2, ())])
            agents[DOOR].step(Action(Kind.UPDATE, k), [])
            assert read_order(tmp_path / DELIVERIES, RULES) == order, "at any moment"
    assert read_order(tmp_path / DELIVERIES, RULES) == order


def test_the_learners_alone_are_the_order(tmp_path: Path) -> None:
    assert read_order(record(tmp_path, TWO), RULES) == [Delivery(1), Delivery(0, gone=True)]
    bare = '{"learner": 2}\n{"learner": 0, "remark": "as you like"}\n'
    assert read_order(record(tmp_path, bare), RULES) == [Delivery(2), Delivery(0)]
    assert read_order(record(tmp_path, ""), RULES) == []


@pytest.mark.parametrize("rest", ['{"learner": 2}', '{"lear', "{", '{"learner": 2', '{"learner": 9}'])
def test_half_a_line_at_the_end_of_a_run_that_was_cut_off_is_left_out(tmp_path: Path, rest: str) -> None:
    assert read_order(record(tmp_path, TWO + rest), RULES) == [Delivery(1), Delivery(0, gone=True)]
    assert read_order(record(tmp_path, rest), RULES) == []


@pytest.mark.parametrize(
    "line", ["", '{"lear', "{}", '{"batch": 3}', "[1]", '"learner"', '"gone"', '["gone"]', "7", "null"]
)
@pytest.mark.parametrize("at", [0, 1, 2])
def test_a_line_that_is_no_delivery_is_named(tmp_path: Path, line: str, at: int) -> None:
    lines = TWO.splitlines()
    lines.insert(at, line)
    path = record(tmp_path, "\n".join(lines) + "\n")
    with pytest.raises(ConfigError) as raised:
        read_order(path, RULES)
    assert str(raised.value) == f"line {at + 1} is no delivery (deliveries: {path}): {line!r}"


@pytest.mark.parametrize("found", ["3", "-1", "1.0", '"1"', "null", "[0]"])
@pytest.mark.parametrize("key", ["learner", "gone"])
def test_a_learner_that_does_not_exist_is_named(tmp_path: Path, found: str, key: str) -> None:
    path = record(tmp_path, TWO + f'{{"{key}": {found}}}\n')
    with pytest.raises(ConfigError) as raised:
        read_order(path, RULES)
    shown = {"null": "None", '"1"': "'1'"}.get(found, found)
    assert str(raised.value) == (
        f"line 3 is of a learner that does not exist (deliveries: {path}, learner: {shown}, learners: 3)"
    )
    assert read_order(record(tmp_path, '{"learner": 2}\n'), RULES) == [Delivery(2)]


def test_a_file_that_is_missing_or_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / DELIVERIES
    with pytest.raises(
        ConfigError, match=rf"^the record cannot be read \(deliveries: {re.escape(str(path))}\): .*No such"
    ):
        read_order(path, RULES)
    path.write_bytes(b"\xff\xfe{}\n")
    with pytest.raises(ConfigError, match=r"^the record cannot be read .*decode"):
        read_order(path, RULES)
    with pytest.raises(ConfigError, match=r"^the record cannot be read .*directory"):
        read_order(tmp_path, RULES)


def test_the_first_updates_of_a_record_end_with_their_last_gradient(tmp_path: Path) -> None:
    lines = [
        f'{{"{key}": {number}}}\n'
        for key, number in zip(("gone", *["learner"] * 4, "gone", "learner"), "2010101", strict=True)
    ]
    path = record(tmp_path, "".join(lines) + '{"learner": 1')
    for gather, updates, count in ((1, 1, 2), (1, 4, 5), (1, 5, 7), (2, 1, 3), (2, 2, 5), (5, 1, 7)):
        assert first_updates(path, Rules(3, gather), updates) == "".join(lines[:count])
    for gather, updates in ((1, 6), (2, 3), (6, 1)):
        with pytest.raises(ConfigError) as raised:
            first_updates(path, Rules(3, gather), updates)
        assert str(raised.value) == (
            f"the record holds fewer updates than the model has (deliveries: {path}, updates: {updates})"
        )
    with pytest.raises(ConfigError, match="fewer updates"):
        first_updates(record(tmp_path, ""), RULES, 1)
    with pytest.raises(ConfigError, match="cannot be read"):
        first_updates(tmp_path / "elsewhere", RULES, 1)


@pytest.mark.parametrize("line", ['garbage\x0c{"learner": 1}', '{"learner": true}', "[" * 100_000])
def test_what_only_looks_like_a_line_is_refused(tmp_path: Path, line: str) -> None:
    path = tmp_path / "deliveries.jsonl"
    path.write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"line 1 is"):
        read_order(path, Rules(2, 1))
