"""What a table of a diagnosis says of a number and what it is held against."""

import io

import pytest
from rich.console import Console

from stalegrid.diagnosis import table

STAGE = {"staleness": 0, "noise": None, "predicted": None, "error": 0.0, "bound": 0.0, "rate_limit": None, "why": ""}


@pytest.mark.parametrize(("bound", "sign"), [(0.5, "<="), (0.4 * (1 - 1e-10), "<="), (0.39, "above"), (None, "")])
def test_what_rounding_alone_takes_above_a_bound_is_not_above_it(bound: float | None, sign: str) -> None:
    consensus = {"distance": 0.4, "after_update": bound, "bound": None, "every_update": True, "why": ""}
    record = {
        "rate": 0.1,
        "gradient_square": 1.0,
        "gradient_square_average": 1.0,
        "noise": {"measured": None, "predicted": None, "bound": None, "why": ""},
        "consensus": consensus,
        "used": True,
        "stages": [STAGE],
        "rate_limit": None,
    }
    said = io.StringIO()
    Console(file=said, width=200).print(table(record))
    (line,) = [line for line in said.getvalue().splitlines() if "by one update" in line]
    assert [word for word in ("<=", "above") if word in line] == ([sign] if sign else [])
