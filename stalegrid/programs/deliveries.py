"""The record of the order in which servers took gradients: a line of JSON each, in the folder of a run.

Does not know: who wrote it, what is done with it.

A line is ``{"learner": l, "batch": b, "version": j, "clock": i}`` for a gradient of batch b that was computed at
version j and taken at version i, or ``{"gone": l}`` for a learner that was lost.  The learners alone are the order;
the rest says how stale each gradient was.
"""

import json
import reprlib
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from stalegrid.errors import ConfigError, DataError
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.written import MEBIBYTE, read_text

DELIVERIES = "deliveries.jsonl"
"""The file in the folder of a run."""

LIMIT = 1024 * MEBIBYTE
"""Bytes of it."""


def read_order(path: Path, rules: Rules) -> list[Delivery]:
    """Read an order; of a run that was cut off, as much as there is.

    Args:
        path: of the record.
        rules: of the run.

    Raises:
        ConfigError: the file cannot be read, or is of other learners.
    """
    try:
        lines = _lines(path)
    except DataError as problem:
        raise DataError(f"the record cannot be read (deliveries: {path}): {problem}") from problem
    return [_delivery(number, line, path, rules) for number, line in enumerate(lines, start=1)]


def _lines(path: Path) -> list[str]:
    """Return the whole lines; a run that was killed may have left half a line."""
    return read_text(path, LIMIT).split("\n")[:-1]


def order_before(order: Sequence[Delivery], rules: Rules, version: int) -> list[Delivery]:
    """Return the deliveries up to the one that completed a version; none where the order does not reach so far."""
    # A lost learner is no gradient, but whom servers answer after it depends on it.
    taken = list(accumulate(int(not delivery.gone) for delivery in order))
    wanted = version * rules.gather
    return list(order[: taken.index(wanted) + 1]) if taken and 0 < wanted <= taken[-1] else []


def first_updates(path: Path, rules: Rules, updates: int) -> str:
    """Return the lines of the first updates of a record.

    Raises:
        ConfigError: the file cannot be read, or holds fewer.
    """
    order = order_before(read_order(path, rules), rules, updates)
    if not order:
        raise ConfigError(f"the record holds fewer updates than the model has (deliveries: {path}, updates: {updates})")
    return "".join(f"{line}\n" for line in _lines(path)[: len(order)])


def _delivery(number: int, line: str, path: Path, rules: Rules) -> Delivery:
    try:
        entry = json.loads(line)
        gone = "gone" in entry
        found = entry["gone" if gone else "learner"]
    except (ValueError, KeyError, TypeError, RecursionError) as problem:
        raise ConfigError(
            f"line {number} is no delivery (deliveries: {path}): {reprlib.repr(line.strip())}"
        ) from problem
    if not isinstance(found, int) or isinstance(found, bool) or not 0 <= found < rules.learners:
        raise ConfigError(
            f"line {number} is of a learner that does not exist (deliveries: {path}, learner: {found!r}, learners: "
            f"{rules.learners})"
        )
    return Delivery(found, gone)
