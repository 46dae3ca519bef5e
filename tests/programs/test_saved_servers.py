"""Saves of servers and learners are a consistent cut, and what comes after one is the rest of the same run."""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.deliveries import order_before
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.live import Live
from stalegrid.programs.messages import END, Message
from stalegrid.programs.saving import Saves
from stalegrid.programs.serving import DOOR, Ordered, in_turn
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.programs.watch import Watch
from tests.programs.test_pipeline import dry_run
from tests.programs.test_softsync import WATCHES, letters, order_of, orders, shown, until_undecided
from tests.programs.walking import needed


@st.composite
def saved(draw: st.DrawFn) -> tuple[Ordered, int]:
    """A run that is saved, and a version at which it is."""
    rules, order, updates = draw(orders().filter(lambda case: case[2] > 1))
    every = draw(st.integers(1, updates - 1))
    program = Ordered(rules, draw(st.integers(1, 3)), updates, draw(WATCHES), order, saves=Saves(every))
    return program, draw(st.sampled_from([n for n in range(1, updates) if program.saved(n)]))


def gone_before(program: Ordered, version: int) -> list[Unit]:
    before = order_before(program.order, program.rules, version)
    return [learner(delivery.learner) for delivery in before if delivery.gone]


def halves(program: Ordered, agent: Unit, version: int) -> tuple[list[Action], list[Action]] | None:
    """Return what an agent does before a save and after it; None if it is not saved."""
    actions = [action for action in program.actions(agent) if isinstance(action, Action)]
    places = [i for i, a in enumerate(actions) if a.kind is Kind.SAVE and a.index == version]
    if not places:
        return None
    (place,) = places
    return actions[:place], actions[place + 1 :]


@settings(deadline=None, max_examples=200)
@given(found=saved())
def test_only_gradients_that_servers_have_not_taken_cross_a_cut(found: tuple[Ordered, int]) -> None:
    program, version = found
    sent, taken = defaultdict[Edge, list[Tag]](list), defaultdict[Edge, list[Tag]](list)
    unsaved = []
    for agent in program.agents:
        if (parts := halves(program, agent, version)) is None:
            unsaved.append(agent)
        # Who was gone already has done before whatever it did.
        for action in list(program.actions(agent)) if parts is None else parts[0]:
            assert isinstance(action, Action)
            for tag in action.sends:
                sent[tag.edge].append(tag)
            for tag in action.needs:
                taken[tag.edge].append(tag)
    assert unsaved == sorted(gone_before(program, version)), "who is gone has no part, and all others have"
    cut = replace(program, saves=Saves(since=version)).cut
    for edge in {*sent, *taken}:
        assert sent[edge][: len(taken[edge])] == taken[edge]
        left = sent[edge][len(taken[edge]) :]
        if edge.name == "push" and left:
            assert edge.source.group in cut.computing
            assert left == sent[edge][-1:], "the last one, which its sender keeps"
        elif edge.name == "weights":
            assert len(left) <= 1, "that of a learner whose gradient no server takes in the whole run"
        else:
            assert not left


@settings(deadline=None, max_examples=200)
@given(found=saved())
def test_a_resumed_run_is_the_rest_of_the_run(found: tuple[Ordered, int]) -> None:
    program, version = found
    again = replace(program, saves=replace(program.saves, since=version))
    rest = {agent: list(again.actions(agent)) for agent in again.agents}
    assert not dry_run(rest)
    for agent in program.agents:
        parts = halves(program, agent, version)
        if parts is None:
            assert rest[agent] == []
            continue
        load, *others = rest[agent]
        assert (load.kind, load.index, load.needs) == (Kind.LOAD, version, ())
        assert others == parts[1]
        made = [tag for action in parts[0] for tag in action.sends]
        assert set(load.sends) <= {tag for tag in made if again.outlived(Tag(tag.edge, tag.index + 1)) == tag}
    for agent in again.agents:
        for edge in again.inbound(agent):
            sent = [tag for action in rest[edge.source] for tag in action.sends if tag.edge == edge]
            taken = needed(again, edge)
            assert taken == sent[: len(taken)]
            assert len(sent) - len(taken) <= (edge.name == "weights")


def test_servers_save_before_they_answer_and_learners_before_they_compute_on_that() -> None:
    program = Ordered(Rules(2, 1), 2, 4, None, order_of("1 1 0 1"), saves=Saves(1))
    assert shown(program.actions(DOOR))[:8] == [
        "A0 > weights0 s0-l0, weights0 s0-l1",
        "T0 < push0 l1-s0 > turn0 s0-s1",
        "U0",
        "P1",
        "A1 > weights1 s0-l1",
        "T1 < push1 l1-s0 > turn1 s0-s1",
        "U1",
        "P2",
    ]
    assert letters(program.actions(learner(1))) == "F0 B0 P1 F1 B1 P2 F2 B2 P3"
    assert letters(program.actions(learner(0))) == "F0 B0 P1 P2 P3", "its first gradient is third"
    again = replace(program, saves=Saves(1, since=2))
    assert shown(again.actions(learner(0))) == ["O2 > push0 l0-s1, push0 l0-s0", "P3"]
    assert shown(again.actions(learner(1)))[:2] == ["O2", "F2 < weights2 s0-l1, weights2 s1-l1"]
    assert shown(again.actions(server(1)))[:3] == ["O2", "A2 > weights2 s1-l1", "T2 < push0 l0-s1, turn2 s0-s1"]


def test_a_learner_that_is_lost_is_saved_as_long_as_it_was_there() -> None:
    program = Ordered(Rules(2, 1), 1, 4, None, order_of("1 0 -1 0 0"), saves=Saves(1))
    assert letters(program.actions(learner(1))) == "F0 B0 P1 P2"
    assert list(replace(program, saves=Saves(1, since=3)).actions(learner(1))) == []


def test_synchronous_learners_have_nothing_under_way_where_they_are_saved() -> None:
    rules = Rules(3, 3, 0)
    program = Ordered(rules, 1, 3, None, in_turn(rules, 3), saves=Saves(1, since=1))
    assert [next(iter(program.actions(unit))) for unit in program.units] == [Action(Kind.LOAD, 1)] * 4


def test_what_may_cross_is_kept_only_where_the_run_is_saved() -> None:
    push, answer = (Tag(Edge(*names), 3) for names in (("push", learner(0), DOOR), ("weights", DOOR, learner(0))))
    program = Ordered(Rules(1, 1), 1, 9, saves=Saves(2))
    assert program.may_cross(push)
    assert not program.may_cross(answer)
    assert not replace(program, saves=Saves()).may_cross(push)
    assert [n in program.crossing(push) for n in (0, 1, 8, 9)] == [False, True, True, False]
    assert list(program.crossing(answer)) == []


def test_an_order_that_ends_before_the_cut_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"ends before the version that the run goes on from \(3\)"):
        Live(Rules(2, 1), 1, 9, None, order_of("0 1"), saves=Saves(since=3))


# Where the network makes the order


def arrived(tag: Tag, version: int = 0) -> Message:
    return Message(tag, version, ())


def walked(actions: Iterator[Action | Hoped], found: list[Action]) -> None:
    found += until_undecided(actions)


@settings(deadline=None, max_examples=200)
@given(found=saved())
def test_a_server_goes_on_after_the_order_that_is_known_with_what_comes(found: tuple[Ordered, int]) -> None:
    program, version = found
    known = order_before(program.order, program.rules, version)
    saves = replace(program.saves, since=version)
    live = Live(program.rules, program.servers, program.updates, program.watch, known, saves=saves)
    assert live.lost_learners == {unit.group for unit in gone_before(program, version)}
    actions, done = live.actions(DOOR), list[Action]()
    walked(actions, done)
    for delivery in program.order[len(known) :]:
        edge = Edge("push", learner(delivery.learner), DOOR)
        if delivery.gone:
            live.lost(edge.source)
        else:
            live.heard(arrived(Tag(edge, 0)))
        walked(actions, done)
    expected = list(replace(program, saves=saves).actions(DOOR))
    assert done[: len(expected)] == expected
    assert [a.kind for a in done[len(expected) :]] == [Kind.STOP]


@settings(deadline=None, max_examples=200)
@given(found=saved(), data=st.data())
def test_a_learner_saves_itself_by_the_versions_that_it_is_given(
    found: tuple[Ordered, int], data: st.DataObject
) -> None:
    program, version = found
    saves = replace(program.saves, since=version) if data.draw(st.booleans()) else program.saves
    known = order_before(program.order, program.rules, version) if saves.since else []
    ordered = replace(program, saves=saves)
    live = Live(program.rules, program.servers, program.updates, program.watch, known, saves=saves)
    unit = data.draw(st.sampled_from(live.learners))
    expected = [a for a in ordered.actions(unit) if isinstance(a, Action)]
    edges = [Edge("weights", shard, unit) for shard in live.shards]
    answers = [a for a in ordered.actions(DOOR) if isinstance(a, Action) and a.kind is Kind.ANSWER]
    tags = {tag.index: a.index for a in answers for tag in a.sends if tag.edge == edges[0]}
    actions, done = live.actions(unit), list[Action]()
    walked(actions, done)
    for forward in [a for a in expected if a.kind is Kind.FORWARD]:
        for due in forward.needs:
            live.heard(arrived(due, tags[due.index]))
        walked(actions, done)
    if done and expected and expected[0].kind is Kind.LOAD and done[0].sends != expected[0].sends:
        # One more gradient than the order of the whole run takes may be under way.
        assert expected[0].sends == ()
        done[0] = expected[0]
    if Delivery(unit.group, gone=True) in program.order:
        # What it computes at last nobody takes, and it is saved no more; up to there it does the same.
        assert done == expected[: len(done)]
        return
    for edge in edges:
        live.heard(arrived(Tag(edge, END), END))
    walked(actions, done)
    assert done[:-1] == expected
    assert done[-1].kind is Kind.STOP


def test_those_who_were_gone_before_take_no_part_any_more() -> None:
    live = Live(Rules(2, 1), 2, 9, None, order_of("1 -1 0"), saves=Saves(since=2))
    assert list(live.actions(learner(1))) == []
    assert shown(islice(live.actions(learner(0)), 2)) == ["O2", "? weights1 s0-l0, weights1 s1-l0"]
    assert shown(islice(live.actions(DOOR), 3)) == ["O2", "A2 > weights1 s0-l0", "? push1 l0-s0"]
    assert shown(islice(live.actions(server(1)), 3)) == ["O2", "A2 > weights1 s1-l0", "? turn3 s0-s1"]


def test_the_observer_is_saved_before_it_hears_of_a_version() -> None:
    program = Ordered(Rules(1, 1), 1, 3, Watch(1, 2, 1), order_of("0 0 0"), saves=Saves(2))
    assert letters(program.actions(OBSERVER)) == "L0 P2 L1 C2 E0 L2 C3 E0"
    assert letters(replace(program, saves=Saves(since=2)).actions(OBSERVER)) == "O2 L1 C2 E0 L2 C3 E0"
    assert letters(program.actions(DOOR)) == "A0 T0 U0 A1 L0 T1 U1 P2 A2 L1 V2 T2 U2 L2 V3"
