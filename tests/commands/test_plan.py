from pathlib import Path

import pytest

from stalegrid.cli import main

LINKED = """
batch_size: 4
devices: [a, b]
links: {a > b: [1, 100], b > a: [1, 100]}
parts:
- {name: first, forward: [1, 3], backward: [2, 6]}
- {name: second, forward: [1, 3], backward: [2, 6]}
- {name: third, forward: [1, 3], backward: [2, 6]}
- {name: fourth, forward: [1, 3], backward: [2, 6]}
"""


@pytest.fixture
def table(tmp_path: Path) -> str:
    (tmp_path / "devices.yaml").write_text(LINKED)
    return str(tmp_path / "devices.yaml")


def test_the_gain_of_cuts_for_unequal_devices_is_told_last(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--costs", table, "--units", "2", "--methods", "pipedream"]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (
        "  cut for unequal devices at fourth: 9 ms/batch, 2 times as fast as cut for equal ones at third: 18 ms/batch "
        "(estimated)"
    )


def test_links_of_a_table_are_not_measured(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--costs", table, "--units", "2", "--measure", "1"]) == 2
    assert f"the table has some (measure: 1, costs: {table}); leave out --measure" in capsys.readouterr().err


def test_a_plan_is_for_as_many_devices_as_the_table_has(table: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--costs", table, "--units", "4"]) == 2
    assert "all devices of a table (units: 4, devices: 2)" in capsys.readouterr().err
