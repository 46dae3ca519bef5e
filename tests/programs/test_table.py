from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, gpipe, one_f_one_b, stale
from stalegrid.programs.table import closed_form, ticks


def expected_cell(stages: int, stage: int, tick: int, batches: int) -> str:
    """Unit k forwards batch t - k and backpropagates batch t - (2K-2-k) at tick t."""
    forward, backward = tick - stage, tick - (2 * stages - 2 - stage)
    parts = [f"{letter}{b}" for letter, b in (("F", forward), ("B", backward)) if 0 <= b < batches]
    return " ".join(parts)


def test_table_of_three_stages_is_the_published_one() -> None:
    rows = ticks(Program(Grid(1, 3), stale([4, 2, 0]), 12))
    assert len(rows) == 3
    for stage, row in enumerate(rows):
        assert row == [expected_cell(3, stage, t, 12) for t in range(12 + 4)]
    assert rows[0][4:6] == ["F4 B0", "F5 B1"]
    assert rows[1][:4] == ["", "F0", "F1", "F2 B0"]
    assert rows[2][:4] == ["", "", "F0 B0", "F1 B1"]


@settings(deadline=None)
@given(stages=st.integers(1, 5), updates=st.integers(1, 12))
def test_closed_form_holds_for_any_number_of_stages(stages: int, updates: int) -> None:
    rows = ticks(Program(Grid(1, stages), stale([2 * (stages - 1 - k) for k in range(stages)]), updates))
    for stage, row in enumerate(rows):
        assert row == [expected_cell(stages, stage, t, updates) for t in range(updates + 2 * stages - 2)]


def test_gpipe_does_one_thing_a_tick() -> None:
    assert ticks(Program(Grid(1, 2), gpipe(2, 2), 2)) == [
        ["F0", "F1", "", "", "B0", "B1", "F2", "F3", "", "", "B2", "B3"],
        ["", "F0", "F1", "B0", "B1", "", "", "F2", "F3", "B2", "B3", ""],
    ]


def test_without_staleness_one_stage_waits_for_the_other() -> None:
    assert ticks(Program(Grid(1, 2), stale([0, 0]), 2)) == [
        ["F0", "", "B0 F1", "", "B1"],
        ["", "F0 B0", "", "F1 B1", ""],
    ]


def test_one_batch_less_in_flight_goes_backward_before_forward_within_a_tick() -> None:
    assert ticks(Program(Grid(1, 2), stale([1, 0]), 4)) == [
        ["F0", "F1", "B0 F2", "B1 F3", "B2", "B3"],
        ["", "F0 B0", "F1 B1", "F2 B2", "F3 B3", ""],
    ]


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(1, 4), micro=st.integers(1, 3), updates=st.integers(1, 4))
def test_every_action_of_the_pipeline_is_in_the_table_once_and_in_order(
    data: Any, stages: int, micro: int, updates: int
) -> None:
    staleness = sorted(data.draw(st.lists(st.integers(0, 5), min_size=stages, max_size=stages)), reverse=True)
    schedule = data.draw(st.sampled_from([stale(staleness, micro), gpipe(stages, micro), one_f_one_b(stages, micro)]))
    program = Program(Grid(2, stages), schedule, updates)
    rows = ticks(program, group=1)
    assert len({len(row) for row in rows}) == 1
    for unit, row in zip((u for u in program.grid if u.group == 1), rows, strict=True):
        shown = [a for cell in row for a in cell.split()]
        assert shown == [str(a) for a in program.actions(unit) if a.kind in (Kind.FORWARD, Kind.BACKWARD)]
        assert all(len({a[0] for a in cell.split()}) == len(cell.split()) for cell in row)


@pytest.mark.parametrize(
    ("schedule", "formulas"),
    [
        (stale([4, 2, 0]), ["min(n, 4)", "min(n, 2)", "0"]),
        (stale([4, 3, 0], 2), ["min(n, 2)", "min(n, 2)", "0"]),
        (stale([1], 4), ["min(n, 1)"]),
        (Schedule((3, 1), 4, delay=1), ["min(n, 1)", "min(n, 1)"]),
        (gpipe(2, 4), ["0", "0"]),
        (one_f_one_b(2, 4), ["0", "0"]),
    ],
)
def test_formulas(schedule: Schedule, formulas: list[str]) -> None:
    assert [closed_form(schedule, k) for k in range(schedule.stages)] == formulas


@settings(deadline=None)
@given(m=st.integers(0, 9), micro=st.integers(1, 4), update=st.integers(0, 12))
def test_formulas_are_the_staleness(m: int, micro: int, update: int) -> None:
    schedule = stale([m], micro)
    oldest = min(schedule.version_of(0, b) for b in range(update * micro, (update + 1) * micro))
    assert eval(closed_form(schedule, 0), {"n": update}) == update - oldest
