"""The record of who met whom."""

from pathlib import Path

import pytest

from stalegrid.errors import ConfigError
from stalegrid.programs.grid import Unit
from stalegrid.programs.meetings import InStep, Meeting, Question
from stalegrid.programs.record import line_of, read_order, record_of
from tests.programs.test_meetings import askers

UNITS = [Unit(0, 0), Unit(1, 0)]


def write(folder: Path, first: str) -> None:
    record_of(folder, UNITS[0]).write_text(first)
    record_of(folder, UNITS[1]).write_text("")


def test_what_is_noted_is_read_back(tmp_path: Path) -> None:
    lateral = InStep(askers(2))
    for unit in UNITS:
        lines = [line_of(action) for n in range(9) for action in lateral.after_update(unit, n)]
        record_of(tmp_path, unit).write_text("".join(f"{line}\n" for line in lines))
    order = read_order(tmp_path, UNITS)
    assert order[UNITS[0]][:3] == [
        Meeting(0, asks=Question(0, 1, 0)),
        Meeting(1, takes=(Question(1, 0, 0),)),
        Meeting(2, answered=Question(0, 1, 0)),
    ]


def test_a_unit_without_a_record_is_named(tmp_path: Path) -> None:
    write(tmp_path, "")
    record_of(tmp_path, UNITS[1]).unlink()
    with pytest.raises(ConfigError, match=r"record of unit \(1,0\) cannot be read: .*1-0.jsonl.* bring it from"):
        read_order(tmp_path, UNITS)


@pytest.mark.parametrize(
    "line",
    [
        "",
        "{",
        "[]",
        '{"asks": [1, 0]}',
        '{"update": -1, "asks": [1, 0]}',
        '{"update": true, "asks": [1, 0]}',
        '{"update": 0, "asks": [0, 0]}',
        '{"update": 0, "asks": [2, 0]}',
        '{"update": 0, "asks": [1]}',
        '{"update": 0, "asks": [1, 0.5]}',
        '{"update": 0, "takes": 3}',
        '{"update": 0, "takes": [1, 0]}',
        '{"update": 0, "answered": "ab"}',
    ],
)
def test_what_is_no_meeting_is_named(line: str, tmp_path: Path) -> None:
    write(tmp_path, f'{{"update": 0, "asks": [1, 0]}}\n{line}\n')
    with pytest.raises(ConfigError, match=r"line 2 is no meeting \(record: .*0-0.jsonl\)"):
        read_order(tmp_path, UNITS)
