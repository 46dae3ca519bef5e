"""Messages of tied parameters: which there are, that all arrive, and that nobody waits for them."""

from collections import defaultdict
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.programs.actions import Edge, Kind, Tag
from stalegrid.programs.grid import Grid, Unit
from stalegrid.programs.pipeline import Program
from stalegrid.programs.schedules import Schedule, one_f_one_b, stale
from stalegrid.programs.table import ticks, tied_form
from stalegrid.programs.ties import GRADIENT, WEIGHTS, Tie, Ties
from tests.programs.test_pipeline import programs, run_dry, schedules
from tests.programs.walking import needed


def tie(*stages: int) -> Tie:
    return Tie(stages, tuple(f"w{k}" for k in stages))


@st.composite
def ties(draw: st.DrawFn, stages: int) -> Ties:
    """Some parameters, each of two or more of the stages."""
    users = st.sets(st.integers(0, stages - 1), min_size=2, max_size=stages).map(sorted)
    found = draw(st.lists(users, max_size=4)) if stages > 1 else []
    return Ties(tuple(Tie(tuple(u), tuple(f"w{i}" for _ in u)) for i, u in enumerate(found)), draw(st.booleans()))


@settings(deadline=None)
@given(data=st.data(), plain=programs())
def test_programs_with_ties_run_to_their_end(data: Any, plain: Program) -> None:
    program = replace(plain, ties=data.draw(ties_of(plain)))
    assert run_dry(program) == {}
    # Each action needs what was sent to it, all of it, in the order in which it was sent.
    sent: dict[Edge, list[Tag]] = defaultdict(list)
    for agent in program.agents:
        for action in program.actions(agent):
            for tag in action.sends:
                sent[tag.edge].append(tag)
    for edge, tags in sent.items():
        assert edge in program.inbound(edge.target)
        assert needed(program, edge) == tags


def ties_of(program: Program) -> st.SearchStrategy[Ties]:
    return ties(program.grid.stages)


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(2, 4), updates=st.integers(1, 6))
def test_no_tick_of_the_table_is_later_for_a_tie(data: Any, stages: int, updates: int) -> None:
    schedule, tied = data.draw(schedules(stages)), data.draw(ties(stages))
    plain, with_ties = (
        Program(Grid(1, stages), schedule, updates),
        Program(Grid(1, stages), schedule, updates, ties=tied),
    )
    assert ticks(with_ties) == ticks(plain)


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(2, 4), updates=st.integers(1, 6))
def test_a_mirror_has_the_weights_of_its_owner(data: Any, stages: int, updates: int) -> None:
    """By counting: the updates before the forward that sent the newest weights are those before the owner's forward."""
    schedule, tied = data.draw(schedules(stages)), data.draw(ties(stages))
    program = Program(Grid(1, stages), schedule, updates, ties=tied)
    made = {unit: _versions(program, unit) for unit in program.units}
    for each in tied.each:
        for k in each.mirrors:
            newest = 0
            for action in program.actions(Unit(0, k)):
                if action.kind is Kind.FORWARD:
                    came = [t for t in action.needs if t.edge.name == WEIGHTS and t.edge.source.stage == each.owner]
                    newest = made[Unit(0, each.owner)][came[0].index] if came else newest
                    assert newest == made[Unit(0, each.owner)][action.index]


def _versions(program: Program, unit: Unit) -> dict[int, int]:
    """Return the updates before the forward of every batch."""
    found, version = {}, 0
    for action in program.actions(unit):
        version += action.kind is Kind.UPDATE
        if action.kind is Kind.FORWARD:
            found[action.index] = version
    return found


@settings(deadline=None)
@given(data=st.data(), stages=st.integers(2, 4), updates=st.integers(1, 6))
def test_what_a_tie_adds_was_waited_for_anyway(data: Any, stages: int, updates: int) -> None:
    """The proof, on drawn schedules: without ties too, what needs a message comes after what sends it."""
    schedule, tied = data.draw(schedules(stages)), data.draw(ties(stages))
    plain = Program(Grid(1, stages), schedule, updates)
    before: dict[tuple[Unit, str], set[tuple[Unit, str]]] = {}
    queues = {unit: list(plain.actions(unit)) for unit in plain.units}
    sender = {tag: (unit, str(a)) for unit, actions in queues.items() for a in actions for tag in a.sends}
    done = True
    while done:
        done = False
        for unit, actions in queues.items():
            while actions and all(sender[tag] in before for tag in actions[0].needs):
                action = actions.pop(0)
                latest = [sender[tag] for tag in action.needs]
                latest += [key for key in list(before)[::-1] if key[0] == unit][:1]
                before[unit, str(action)] = set(latest).union(*(before[key] for key in latest))
                done = True
    assert not any(queues.values())
    program = Program(Grid(1, stages), schedule, updates, ties=tied)
    sends = {tag: (u, str(a)) for u in program.units for a in program.actions(u) for tag in a.sends}
    for unit in program.units:
        for action in program.actions(unit):
            assert all(sends[tag] in before[unit, str(action)] for tag in action.needs)


def names_of(program: Program, stage: int) -> list[str]:
    return [
        f"{action} {'needs' if tag in action.needs else 'sends'} {tag}"
        for action in program.actions(Unit(0, stage))
        for tag in (*action.needs, *action.sends)
        if tag.edge.name in (WEIGHTS, GRADIENT)
    ]


def test_gradients_go_from_use_to_use_and_weights_to_every_user() -> None:
    program = Program(Grid(1, 4), stale([6, 4, 2, 0]), 8, ties=Ties((tie(0, 1, 3),)))
    assert names_of(program, 0)[:3] == [
        "B0 needs tie-gradient (0,1)->(0,0) #0",
        "F7 sends tie-weights (0,0)->(0,1) #7",
        "F7 sends tie-weights (0,0)->(0,3) #7",
    ]
    assert names_of(program, 1)[:2] == [
        "B0 needs tie-gradient (0,3)->(0,1) #0",
        "B0 sends tie-gradient (0,1)->(0,0) #0",
    ]
    assert names_of(program, 2) == []
    assert names_of(program, 3)[-2:] == [
        "F7 needs tie-weights (0,0)->(0,3) #7",
        "B7 sends tie-gradient (0,3)->(0,1) #7",
    ]


@pytest.mark.parametrize(
    ("schedule", "renewed"),
    [
        (stale([0, 0]), [1, 2, 3, 4, 5, 6, 7]),
        (stale([2, 0]), [3, 4, 5, 6, 7]),
        (stale([1, 0], 2), [3, 5, 7]),
        (one_f_one_b(2, 4), [4]),
        (Schedule((2, 1), 2, delay=1), [4, 6]),
    ],
    ids=str,
)
def test_weights_travel_when_the_owner_has_new_ones(schedule: Schedule, renewed: list[int]) -> None:
    program = Program(Grid(1, 2), schedule, 8 // schedule.micro_batches, ties=Ties((tie(0, 1),)))
    assert [t.index for t in needed(program, Edge(WEIGHTS, Unit(0, 0), Unit(0, 1)))] == renewed
    always = Program(Grid(1, 2), schedule, 8 // schedule.micro_batches, ties=Ties((tie(0, 1),), always=True))
    assert [t.index for t in needed(always, Edge(WEIGHTS, Unit(0, 0), Unit(0, 1)))] == list(range(8))


def test_an_edge_carries_all_parameters_of_its_two_stages() -> None:
    tied = Ties((tie(0, 2), tie(0, 1, 2), tie(1, 2)))
    low, middle, high = (Unit(0, k) for k in range(3))
    assert tied.along(Edge(WEIGHTS, low, high)) == tied.each[:2]
    assert tied.along(Edge(WEIGHTS, middle, high)) == tied.each[2:]
    assert tied.along(Edge(GRADIENT, high, low)) == tied.each[:1]
    assert tied.along(Edge(GRADIENT, high, middle)) == tied.each[1:]
    assert tied.along(Edge(GRADIENT, middle, high)) == ()
    assert [str(edge) for edge in tied.into(WEIGHTS, Unit(1, 2))] == [
        "tie-weights (1,0)->(1,2)",
        "tie-weights (1,1)->(1,2)",
    ]
    assert [list(tied.mirrored(k).values()) for k in range(3)] == [[], ["w1"], ["w2", "w2", "w2"]]


def test_a_line_says_who_trains_it_and_how_stale() -> None:
    shown = tied_form(stale([4, 2, 0]), tie(0, 2))
    assert shown.startswith("w0: trained by stage 0, with mirrors in 2;")
    assert shown.endswith("its staleness is min(n, 4)")
    assert tied_form(one_f_one_b(3, 4), tie(1, 2)).endswith("its staleness is 0")
