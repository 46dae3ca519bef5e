"""What stages do where they measure the model themselves: who tells whom, in which order, and how far ahead."""

from collections import Counter, deque

import pytest

from stalegrid.programs import OBSERVER, Edge, Grid, Program, Tag, Unit, stale
from stalegrid.programs.through import AHEAD, LENT, MEAN, MEASURED, REPLICA, TAKEN, TESTED, THROUGH, Lent, Through


def program(groups: int, stages: int, chunks: int, *lent: Lent, gone: frozenset[int] = frozenset()) -> Program:
    watch = Through(2, 3, chunks, stages, lent)
    windows = [2 * (stages - 1 - k) for k in range(stages)]
    return Program(Grid(groups, stages), stale(windows, 1), 6, watch=watch, gone=gone)


def texts(made: Program, agent: Unit, version: int) -> list[str]:
    """Return what an agent does for a version that is measured, each with its messages."""
    found, counting = [], False
    for action in made.actions(agent):
        counting = counting or (action.kind.value in "CV" and action.index == version)
        if counting and action.kind.value not in "CEV":
            break
        if counting:
            needs = " ".join(f"{tag.edge.name}{tag.index}" for tag in action.needs)
            sends = " ".join(f"{tag.edge.name}{tag.index}" for tag in action.sends)
            found.append(f"{needs} > {action} > {sends}".strip())
    return found


def test_what_each_does_for_a_version() -> None:
    made = program(2, 2, 4, Lent(0, "a", 1, "b"))
    assert texts(made, Unit(1, 0), 3) == ["> V3 > replica3"]
    assert texts(made, Unit(0, 0), 3) == [
        "replica3 > C3 > mean3 lent3",
        "> E0 > tested12",
        "> E1 > tested13",
        "taken12 > E2 > tested14",
        "taken13 > E3 > tested15",
    ]
    assert texts(made, Unit(0, 1), 3) == [
        "replica3 > C3 > mean3",
        "tested12 lent3 > E0 > taken12",
        "tested13 > E1 > taken13",
        "tested14 > E2 >",
        "tested15 > E3 > measured3",
    ]
    assert texts(made, OBSERVER, 3) == ["mean3 mean3 > C3 >", "measured3 > E3 >"]


@pytest.mark.parametrize("groups", [1, 3])
@pytest.mark.parametrize("stages", [1, 2, 4])
@pytest.mark.parametrize("chunks", [0, 1, AHEAD, AHEAD + 3])
def test_it_ends_whoever_is_fast_and_no_more_than_that_is_under_way(groups: int, stages: int, chunks: int) -> None:
    lent = (Lent(0, "a", stages - 1, "b"), Lent(stages - 1, "c", 0, "d")) if stages > 1 and chunks else ()
    made = program(groups, stages, chunks, *lent)
    # The lowest first, as far as it comes: then most is under way.
    todo = {agent: deque(made.actions(agent)) for agent in made.agents}
    edges = {edge for agent in made.agents for edge in made.inbound(agent)}
    sent: dict[Edge, deque[Tag]] = {edge: deque() for edge in edges}
    most: Counter[str] = Counter()
    while any(todo.values()):
        ready = [a for a, left in todo.items() if left and all(sent[tag.edge] for tag in left[0].needs)]
        assert ready, {a: str(left[0]) for a, left in todo.items() if left}
        action = todo[ready[0]].popleft()
        assert [sent[tag.edge].popleft() for tag in action.needs] == list(action.needs)
        for tag in action.sends:
            sent[tag.edge].append(tag)
            most[tag.edge.name] = max(most[tag.edge.name], len(sent[tag.edge]))
    assert not any(sent.values())
    assert most[TESTED] <= AHEAD
    assert most[TAKEN] <= AHEAD
    assert {name for name in most if name in THROUGH} == {
        MEAN,
        *([REPLICA] if groups > 1 else []),
        *([LENT] if lent else []),
        *([MEASURED] if chunks else []),
        *([TESTED] if chunks and stages > 1 else []),
        *([TAKEN] if chunks > AHEAD and stages > 1 else []),
    }


def test_the_first_group_that_is_there_measures() -> None:
    made = program(3, 1, 1, gone=frozenset({0}))
    assert texts(made, Unit(1, 0), 3)[0] == "replica3 > C3 > mean3"
    assert texts(made, Unit(2, 0), 3) == ["> V3 > replica3"]


def test_nothing_of_a_measurement_is_under_way_where_it_is_saved() -> None:
    made = program(2, 2, 4)
    for agent in made.agents:
        for action in made.actions(agent):
            assert all(not made.crossing(tag) for tag in action.sends if tag.edge.name in THROUGH)
