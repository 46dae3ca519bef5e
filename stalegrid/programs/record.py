"""The record of who met whom: a file for each unit, a line of JSON for each action, in the folder of a run.

Does not know: who wrote it, what is done with it.

A line is ``{"update": n, "answered": [r, i], "takes": [[r, j], ...]}`` for question i to group r that was answered, and
question j of group r that was, or ``{"update": n, "asks": [r, i]}``.
"""

import json
import reprlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stalegrid.errors import ConfigError, DataError
from stalegrid.programs.actions import Action, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.meetings import ANSWER, Meeting, Order, Question
from stalegrid.written import MEBIBYTE, read_text

MEETINGS = "meetings"
"""The folder of the records in the folder of a run."""

LIMIT = 1024 * MEBIBYTE
"""Bytes of one."""


def record_of(folder: Path, unit: Unit) -> Path:
    """Return the file of a unit.

    Args:
        folder: of the records.
        unit: whose.
    """
    return folder / f"{unit.group}-{unit.stage}.jsonl"


def line_of(action: Action) -> str | None:
    """Return what is noted of an action; None for nothing.

    Args:
        action: that a unit has executed.
    """
    if action.kind is Kind.SHARE:
        (tag,) = action.sends
        return json.dumps({"update": action.index, "asks": [tag.edge.target.group, tag.index]})
    if action.kind is not Kind.MIX:
        return None
    answered = next((_from(tag) for tag in action.needs if tag.edge.name == ANSWER), None)
    takes = [_from(tag) for tag in action.needs if tag.edge.name != ANSWER]
    return json.dumps({"update": action.index, "answered": answered, "takes": takes})


def _from(tag: Tag) -> list[int]:
    return [tag.edge.source.group, tag.index]


def read_order(folder: Path, units: Sequence[Unit]) -> Order:
    """Read who met whom in a run.

    Args:
        folder: of the records.
        units: of the run.

    Raises:
        ConfigError: a record is missing, or is of another run.
    """
    return {unit: _read(record_of(folder, unit), unit, units) for unit in units}


def _read(path: Path, unit: Unit, units: Sequence[Unit]) -> list[Meeting]:
    try:
        lines = read_text(path, LIMIT).splitlines()
    except DataError as problem:
        raise ConfigError(
            f"the record of unit {unit} cannot be read: {problem}; bring it from the host where that unit was"
        ) from problem
    return [_meeting(number, line, path, unit, units) for number, line in enumerate(lines, start=1)]


def _meeting(number: int, line: str, path: Path, unit: Unit, units: Sequence[Unit]) -> Meeting:
    try:
        entry = json.loads(line)
        answered, asks = (_question(entry.get(name), unit, units) for name in ("answered", "asks"))
        takes = tuple(_asked_by(pair, unit, units) for pair in entry.get("takes", ()))
        update = _whole(entry["update"])
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as problem:
        raise ConfigError(f"line {number} is no meeting (record: {path}): {reprlib.repr(line.strip())}") from problem
    return Meeting(update, answered, takes, asks)


def _question(pair: Any, unit: Unit, units: Sequence[Unit]) -> Question | None:
    return None if pair is None else Question(unit.group, *_pair(pair, unit, units))


def _asked_by(pair: Any, unit: Unit, units: Sequence[Unit]) -> Question:
    group, number = _pair(pair, unit, units)
    return Question(group, unit.group, number)


def _pair(pair: Any, unit: Unit, units: Sequence[Unit]) -> tuple[int, int]:
    group, number = map(_whole, pair)
    if Unit(group, unit.stage) not in units or group == unit.group:
        raise ValueError("there is no such group")
    return group, number


def _whole(number: Any) -> int:
    if not isinstance(number, int) or isinstance(number, bool) or number < 0:
        raise ValueError("this counts nothing")
    return number
