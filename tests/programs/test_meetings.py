"""Meetings in pairs whose order is known."""

from typing import Any

import pytest

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Kind
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.meetings import Askers, InStep, Meeting, Question, Recorded
from stalegrid.programs.pipeline import Program
from stalegrid.programs.saving import Saves
from stalegrid.programs.schedules import stale


class Around(Askers):
    """Everybody asks the neighbours in a circle, in turn."""

    def asked(self, unit: Unit, number: int) -> Question:
        others = self.neighbours[unit.group]
        return Question(unit.group, others[number % len(others)], number)


def askers(groups: int = 3, period: int = 1, updates: int = 9) -> Around:
    return Around(tuple(tuple(r for r in range(groups) if r != s) for s in range(groups)), period, updates)


def test_who_is_as_fast_as_all_is_answered_after_the_next_update() -> None:
    lateral, unit = InStep(askers()), Unit(0, 1)
    shown = [[str(a) for a in lateral.after_update(unit, n)] for n in range(9)]
    # 0 asks 1 and is asked by 1 and 2; one question of each is under way.
    assert shown == [["S0"], ["M1"], ["M2", "S2"], [], ["M4", "S4"], ["M5"], ["M6", "S6"], [], ["M8"]]
    assert lateral.meeting(unit, 1) == Meeting(1, None, (Question(1, 0, 0), Question(2, 0, 0)))
    assert lateral.meeting(unit, 2) == Meeting(2, Question(0, 1, 0), (), Question(0, 2, 1))


@pytest.mark.parametrize(("period", "asks"), [(1, [0, 2, 4, 6]), (2, [1, 3, 5]), (3, [2, 5])])
def test_nobody_asks_what_would_not_be_answered_before_the_end(period: int, asks: list[int]) -> None:
    lateral = InStep(askers(period=period))
    assert [n for n in range(9) if lateral.meeting(Unit(1, 0), n).asks] == asks


@pytest.mark.parametrize("period", [1, 2, 3])
def test_messages_are_under_way_at_the_versions_between_both_ends(period: int) -> None:
    lateral = InStep(askers(4, period, 12))
    known = Recorded(lateral.askers, {Unit(s, 2): list(lateral.meetings(Unit(s, 2))) for s in range(4)})
    sent = [tag for s in range(4) for n in range(12) for a in lateral.after_update(Unit(s, 2), n) for tag in a.sends]
    assert sent
    assert [lateral.crossing(tag) for tag in sent] == [known.crossing(tag) for tag in sent]


def test_a_repeated_order_has_the_same_actions() -> None:
    lateral = InStep(askers())
    known = Recorded(lateral.askers, {Unit(s, 0): list(lateral.meetings(Unit(s, 0))) for s in range(3)})
    for s in range(3):
        for n in range(9):
            assert list(known.after_update(Unit(s, 0), n)) == list(lateral.after_update(Unit(s, 0), n))
        assert list(known.edges(Unit(s, 0))) == list(lateral.edges(Unit(s, 0)))


@pytest.mark.parametrize(
    "left_out",
    [
        {Unit(0, 0): [Meeting(0, asks=Question(0, 1, 0))], Unit(1, 0): []},
        {Unit(0, 0): [], Unit(1, 0): [Meeting(0, takes=(Question(0, 1, 0),))]},
    ],
)
def test_an_order_that_lacks_one_end_of_a_message_is_refused(left_out: Any) -> None:
    with pytest.raises(ConfigError, match=r"sent and not taken, or taken and not sent \(message: (question|answer)"):
        Recorded(askers(2), left_out)


def test_a_run_that_goes_on_from_a_save_has_the_rest_of_the_actions() -> None:
    program = Program(Grid(3, 2), stale([1, 0], 1), 9, InStep(askers()), saves=Saves(every=4))
    whole = [a for a in program.actions(Unit(1, 0)) if a.kind in (Kind.SHARE, Kind.MIX)]
    later = Program(Grid(3, 2), stale([1, 0], 1), 9, InStep(askers()), saves=Saves(every=4, since=4))
    rest = [a for a in later.actions(Unit(1, 0)) if a.kind in (Kind.SHARE, Kind.MIX)]
    assert rest == [a for a in whole if a.index >= 4]
