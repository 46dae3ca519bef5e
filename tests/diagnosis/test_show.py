"""What a table of a diagnosis says of a number and what it is held against."""

import io

import pytest
from rich.console import Console

from stalegrid.diagnosis import table
from stalegrid.observe import Record

STAGE = {"staleness": 0, "noise": None, "predicted": None, "error": 0.0, "bound": 0.0, "rate_limit": None, "why": ""}
RECORD = {
    "rate": 0.1,
    "gradient_square": 1.0,
    "gradient_square_average": 1.0,
    "noise": {"measured": None, "predicted": None, "bound": None, "why": ""},
    "consensus": None,
    "used": True,
    "stages": [STAGE, STAGE],
    "rate_limit": None,
    "rate_limit_why": "",
}


def lines(record: Record) -> list[str]:
    said = io.StringIO()
    Console(file=said, width=200).print(table(record))
    return said.getvalue().splitlines()


@pytest.mark.parametrize(("bound", "sign"), [(0.5, "<="), (0.4 * (1 - 1e-10), "<="), (0.39, "above"), (None, "")])
def test_what_rounding_alone_takes_above_a_bound_is_not_above_it(bound: float | None, sign: str) -> None:
    consensus = {"distance": 0.4, "after_update": bound, "bound": None, "every_update": True, "why": ""}
    (line,) = [line for line in lines(RECORD | {"consensus": consensus}) if "by one update" in line]
    assert [word for word in ("<=", "above") if word in line] == ([sign] if sign else [])


def test_why_all_stages_together_have_no_limit_is_told() -> None:
    why = "not known where corrections scale stages unlike"
    (line,) = [line for line in lines(RECORD | {"rate_limit_why": why}) if why in line]
    assert line.split()[:5] == ["rate:", "largest", "stable", "one", "all"]
