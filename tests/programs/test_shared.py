"""What units do where they share an evaluation: who measures what, who waits for whom, and that it ends."""

from collections import deque
from dataclasses import replace

import pytest

from stalegrid.programs import OBSERVER, Action, Edge, Grid, Program, Tag, Unit, stale
from stalegrid.programs.looking import LONG, Looks
from stalegrid.programs.shared import PART, WHOLE, Shared
from stalegrid.programs.watch import Watch


def program(groups: int, stages: int, chunks: int, gone: frozenset[int] = frozenset()) -> Program:
    windows = [2 * (stages - 1 - k) for k in range(stages)]
    return Program(Grid(groups, stages), stale(windows, 1), 6, watch=Shared(2, 3, chunks), gone=gone)


def measured(made: Program, agent: Unit, version: int) -> list[Action]:
    """Return what an agent does for a version that is measured."""
    found: list[Action] = []
    for action in made.actions(agent):
        if found and action.kind.value not in "CEV":
            break
        if found or (action.kind.value in "CV" and action.index == version):
            found.append(action)
    return found


def texts(made: Program, agent: Unit, version: int) -> list[str]:
    found = []
    for action in measured(made, agent, version):
        needs = " ".join(f"{tag.edge.name}{tag.index}" for tag in action.needs)
        sends = " ".join(f"{tag.edge.name}{tag.index}" for tag in action.sends)
        found.append(f"{needs} > {action} > {sends}".strip())
    return found


def test_what_each_does_for_a_version() -> None:
    made = program(1, 2, 3)
    assert texts(made, Unit(0, 0), 3) == ["> V3 > snapshot3", "whole3 > E0 >", "> E2 > part3"]
    assert texts(made, Unit(0, 1), 3) == ["> V3 > snapshot3", "whole3 > E1 > part3"]
    assert texts(made, OBSERVER, 3) == ["snapshot3 snapshot3 > C3 > whole3 whole3", "part3 part3 > E3 >"]


def test_who_has_no_slice_is_told_nothing_and_tells_nothing() -> None:
    made = program(1, 2, 1)
    assert texts(made, Unit(0, 1), 3) == ["> V3 > snapshot3"]
    assert texts(made, OBSERVER, 3) == ["snapshot3 snapshot3 > C3 > whole3", "part3 > E3 >"]
    assert Edge(WHOLE, OBSERVER, Unit(0, 1)) not in made.inbound(Unit(0, 1))
    nobody = program(1, 2, 0)
    assert texts(nobody, OBSERVER, 3) == ["snapshot3 snapshot3 > C3 >"]


@pytest.mark.parametrize("gone", [frozenset[int](), frozenset({1})])
@pytest.mark.parametrize("chunks", [0, 1, 5, 12])
def test_every_slice_is_measured_once_and_it_ends_whoever_is_fast(chunks: int, gone: frozenset[int]) -> None:
    made = program(3, 2, chunks, gone)
    for version in (3, 6):
        shares = [a.index for u in made.units for a in measured(made, u, version) if a.kind.value == "E"]
        assert sorted(shares) == list(range(chunks))
    # The lowest first, as far as it comes: then most is under way.
    todo = {agent: deque(made.actions(agent)) for agent in made.agents}
    sent: dict[Edge, deque[Tag]] = {edge: deque() for agent in made.agents for edge in made.inbound(agent)}
    while any(todo.values()):
        ready = [a for a, left in todo.items() if left and all(sent[tag.edge] for tag in left[0].needs)]
        assert ready, {a: str(left[0]) for a, left in todo.items() if left}
        action = todo[ready[0]].popleft()
        assert [sent[tag.edge].popleft() for tag in action.needs] == list(action.needs)
        for tag in action.sends:
            sent[tag.edge].append(tag)
    assert not any(sent.values())


def test_who_waits_waits_for_the_share_of_another_one_at_most() -> None:
    assert program(1, 2, 5).silence([Unit(0, 0)]) == program(1, 2, 0).silence([Unit(0, 0)]) + 3


@pytest.mark.parametrize("watch", [Watch(2, 3, 5), Shared(2, 3, 5)])
def test_who_waits_for_the_observer_waits_for_a_diagnosis_too(watch: Watch) -> None:
    made = replace(program(1, 2, 5), watch=watch)
    diagnosed = replace(made, watch=replace(watch, looks=Looks(3, ((0,), (0,)))))
    assert diagnosed.silence(made.units) == made.silence(made.units) + LONG


def test_nothing_of_a_measurement_is_under_way_where_it_is_saved() -> None:
    made = program(2, 2, 4)
    for agent in made.agents:
        for action in made.actions(agent):
            assert all(not made.crossing(tag) for tag in action.sends if tag.edge.name in (WHOLE, PART))
