"""Servers and learners that are asked to be saved, or to leave, do so at one version; what comes then is the rest."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import replace

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from stalegrid.errors import ConfigError, PeerLost
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.led import Led
from stalegrid.programs.live import Live
from stalegrid.programs.messages import END, Message
from stalegrid.programs.saving import LEAVE, SAVE, Saves
from stalegrid.programs.serving import DOOR, Ordered, in_turn
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.programs.watch import Watch
from tests.programs.test_softsync import RULES, Processes, contents, letters, order_of, orders

OUTSIDE = (Kind.SAVE, Kind.STOP, Kind.LOAD)


class Asked(Processes):
    """Processes that are asked at some gradients; what is asked travels in messages alone."""

    def __init__(self, live: Live, together: bool, seed: int, losses: float, asks: dict[int, int]) -> None:
        self.asks, self.code = asks, 0
        self.given: dict[Tag, int] = {}  # versions of weights
        self.versions: Counter[Unit] = Counter(dict.fromkeys(live.shards, live.saves.since))
        # Of an order that is known, and not just that of the learners, all is in one process.
        self.alone = isinstance(live, Led) and live.order != in_turn(live.rules, live.updates)
        super().__init__(live, together or self.alone, seed, losses)

    def shares(self, unit: Unit) -> bool:
        return self.alone or super().shares(unit)

    def step(self, unit: Unit) -> None:
        action = self.next[unit]
        assert isinstance(action, Action)
        self.code = 0
        if unit == DOOR and action.kind is Kind.TAKE:
            wanted = self.asks.get(action.index, 0)
            # As who asks does: nobody who was to save himself may have missed it.
            self.code = wanted if wanted & LEAVE or self.programs[unit].settled else 0
            self.programs[unit].ask(self.code)
        if action.kind is Kind.FORWARD:
            (self.versions[unit],) = {self.given[tag] for tag in action.needs}
        super().step(unit)
        self.versions[unit] += action.kind is Kind.UPDATE

    def message(self, unit: Unit, action: Action, tag: Tag) -> Message:
        program, version = self.programs[unit], self.versions[unit]
        if tag.index == END:
            return Message(tag, version, ())
        if tag.edge.name == "turn":
            number, gone = contents(action)
            return Message(tag, version, (torch.tensor([number, gone | self.code]),))
        if tag.edge.name == "weights":
            self.given[tag] = version
        says = program.says_asked(tag.edge)
        return Message(tag, version, (torch.tensor([program.asked_last(version)]),) if says else ())

    @property
    def order(self) -> list[Delivery]:
        taken = (contents(a) for a in self.done[DOOR] if a.kind in (Kind.TAKE, Kind.DROP))
        return [Delivery(number, bool(gone)) for number, gone in taken]


def saves(actions: Iterable[Action]) -> list[int]:
    return [action.index for action in actions if action.kind is Kind.SAVE]


def trained(actions: Iterable[Action]) -> list[Action]:
    return [action for action in actions if action.kind not in OUTSIDE]


def check_whole(program: Live, found: dict[Unit, list[Action]], order: list[Delivery]) -> None:
    """Hold what agents have done against what is due in an order."""
    known = Ordered(program.rules, program.servers, program.updates, program.watch, order)
    gone = {delivery.learner for delivery in order if delivery.gone}
    for unit in known.agents:
        due = [action for action in known.actions(unit) if isinstance(action, Action)]
        if unit in known.learners:
            # It may have begun with one more batch, of which nobody takes the gradient.
            assert found[unit][: len(due)] == due or unit.group in gone
            assert len(found[unit]) <= len(due) + 2
        else:
            assert found[unit] == due


WATCHES = st.builds(Watch, st.integers(1, 5), st.none() | st.integers(1, 3), st.integers(0, 2))
PLANNED = st.builds(Saves, st.none() | st.integers(1, 3))
LIVE = st.builds(Live, RULES, st.integers(1, 3), st.integers(2, 6), WATCHES, saves=PLANNED, asks=st.just(True))


@st.composite
def led(draw: st.DrawFn) -> Live:
    rules, order, updates = draw(orders(losses=0).filter(lambda case: case[2] > 1))
    if draw(st.booleans()):
        rules = Rules(rules.learners, rules.learners, 0)
        order = in_turn(rules, updates)
    program = Ordered(rules, draw(st.integers(1, 3)), updates, draw(WATCHES), order, saves=draw(PLANNED))
    return Led.of(program)


@settings(deadline=None, max_examples=200)
@given(
    program=LIVE | led(),
    together=st.booleans(),
    seed=st.integers(0, 10**6),
    asks=st.sets(st.integers(0, 20)),
    losses=st.sampled_from([0, 0, 0.01]),
)
def test_whoever_asks_has_all_save_one_version_and_nothing_else_changes(
    program: Live, together: bool, seed: int, asks: set[int], losses: float
) -> None:
    losses = 0 if isinstance(program, Led) else losses
    try:
        run = Asked(program, together, seed, losses, dict.fromkeys(asks, SAVE))
    except PeerLost:
        assume(losses)
        return
    at = saves(run.done[DOOR])
    assert at == sorted(set(at))
    assert set(range(1, program.updates)) & {n for n in at if program.saved(n)} == {
        n for n in range(1, program.updates) if program.saved(n)
    }
    for unit in program.shards:
        assert saves(run.done[unit]) == at
    # Whoever learns of it no more, as the run ends, has no part in the last that was asked for; an observer who is told
    # of two has none in the first.
    last = max((n for n in at if not program.saves.planned(n)), default=0)
    for unit in program.learners:
        assert set(saves(run.done[unit])) <= set(at)
        assert unit in run.lost or set(at) - {last} <= set(saves(run.done[unit]))
    assert set(saves(run.done[OBSERVER])) <= set(at)
    check_whole(program, {unit: trained(actions) for unit, actions in run.done.items()}, run.order)


def early() -> Live:
    """Return a run that learner 2 is through with early: it is asked to leave while that one saves what is planned."""
    order = [1, 2, 3, 1, 2, 3, 4, 3, 3, 0, 0, 4, 1, 4, 0, 4, 0, 1, 2, 1, 4, 3, 1, 1, 3, 0, 3, 3]
    return Led.of(Ordered(Rules(5, 7), 2, 4, Watch(1), [Delivery(number) for number in order], saves=Saves(3)))


@settings(deadline=None, max_examples=300)
@given(
    program=LIVE | led(),
    together=st.booleans(),
    seed=st.integers(0, 10**6),
    at=st.integers(0, 20),
    before=st.sets(st.integers(0, 20)),
)
@example(program=early(), together=False, seed=198, at=7, before={0})
def test_a_run_that_leaves_ends_after_a_save_of_all_and_what_comes_later_is_the_rest_of_it(
    program: Live, together: bool, seed: int, at: int, before: set[int]
) -> None:
    first = Asked(program, together, seed, 0, {**dict.fromkeys(before, SAVE), at: SAVE | LEAVE})
    left = first.programs[DOOR].left
    assert {first.programs[unit].left for unit in program.agents} == {left}
    if left is None:
        check_whole(program, {unit: trained(actions) for unit, actions in first.done.items()}, first.order)
        return
    for unit in program.agents:
        *done, last = first.done[unit]
        if unit != OBSERVER:
            assert last.kind is Kind.STOP
            last = done[-1]
        # An observer, or a learner who has done all its batches, may have saved itself for what would have come later.
        mine = [n for n in saves(first.done[unit]) if n <= left]
        assert (last.kind, max(mine)) == (Kind.SAVE, left)
    order = program.order if isinstance(program, Led) else first.order
    again = replace(program, order=order, saves=replace(program.saves, since=left), lost_learners=set())
    second = Asked(again, together, seed + 1, 0, {})
    assert second.programs[DOOR].left is None
    both = {unit: trained([*first.done[unit], *second.done[unit]]) for unit in program.agents}
    for unit in program.learners:
        load = second.done[unit][0]
        pushed = [a for a in first.done[unit] if a.kind is Kind.BACKWARD]
        crosses = len(pushed) > sum(d.learner == unit.group for d in first.order)
        assert (load.kind, load.index) == (Kind.LOAD, left)
        assert load.sends == (pushed[-1].sends if crosses else ())
    check_whole(program, both, [*first.order, *second.order])


def test_the_first_server_decides_and_tells_the_others_with_a_gradient() -> None:
    program = Live(Rules(1, 2), 2, 3, asks=True)
    door, other = program.actions(DOOR), replace(program, lost_learners=set())
    push = Edge("push", learner(0), DOOR)
    assert str(next(door)) == "A0"
    next(door)
    for index in range(2):
        program.heard(Message(Tag(push, index), 0, ()))
    assert str(next(door)) == "T0"
    program.ask(SAVE | LEAVE)  # with the first of two gradients of an update
    assert letters(next(door) for _ in range(5)) == "A0 T1 U0 P1 X1"
    second = other.actions(server(1))
    assert letters(next(second) for _ in range(2)) == "A0 ?"
    turn = Edge("turn", DOOR, server(1))
    for index, said in enumerate((SAVE | LEAVE, 0)):
        other.heard(Message(Tag(turn, index), 0, (torch.tensor([0, said]),)))
    assert letters(next(second) for _ in range(6)) == "T0 A0 T1 U0 P1 X1"
    assert (program.left, other.left) == (1, 1)


def test_what_is_asked_for_the_end_is_of_no_use_any_more() -> None:
    program = Live(Rules(1, 1), 1, 1, asks=True)
    door = program.actions(DOOR)
    program.heard(Message(Tag(Edge("push", learner(0), DOOR), 0), 0, ()))
    assert letters(next(door) for _ in range(2)) == "A0 T0"
    program.ask(SAVE | LEAVE)
    assert letters(next(door) for _ in range(2)) == "U0 X1"
    assert program.left is None


def test_a_save_is_settled_once_all_learners_have_come_back() -> None:
    program = Live(Rules(2, 1), 1, 9, asks=True)
    door = program.actions(DOOR)
    push = [Edge("push", learner(number), DOOR) for number in range(2)]
    program.heard(Message(Tag(push[0], 0), 0, ()))
    assert letters(next(door) for _ in range(2)) == "A0 T0"
    assert program.settled
    program.ask(SAVE)
    assert letters(next(door) for _ in range(4)) == "U0 P1 A1 ?"
    program.heard(Message(Tag(push[0], 1), 1, ()))
    assert not program.settled
    program.lost(learner(1))
    assert program.settled


def test_a_run_that_repeats_a_loss_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="learners were lost"):
        Led.of(Ordered(Rules(2, 1), 1, 2, None, order_of("1 -1 0")))
