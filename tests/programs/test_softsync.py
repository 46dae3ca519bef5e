"""Who is answered when, against all orders in which gradients may come; and what servers and learners do, by hand."""

import random
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from copy import deepcopy
from itertools import islice, permutations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.errors import ConfigError, PeerLost
from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.live import Live
from stalegrid.programs.messages import END, Message
from stalegrid.programs.serving import DOOR, Ordered, Served, in_turn
from stalegrid.programs.softsync import Delivery, Rules, Turns
from stalegrid.programs.watch import Watch
from tests.programs.test_pipeline import dry_run

RULES = st.builds(Rules, st.integers(1, 7), st.integers(1, 8), st.none() | st.integers(0, 4))


def order_of(text: str) -> list[Delivery]:
    """Read ``0 1 -0``: a gradient of learner 0, one of learner 1, learner 0 is gone."""
    return [Delivery(int(entry.removeprefix("-")), entry.startswith("-")) for entry in text.split()]


# Turns


class Books:
    """What a server should know, kept by plain counting, and checked against what it says."""

    def __init__(self, rules: Rules) -> None:
        self.rules, self.turns, self.taken = rules, Turns(rules), 0
        self.computing: dict[int, int] = {}
        self.waiting = list(range(rules.learners))
        self.staleness: list[int] = []
        self.answer()

    @property
    def version(self) -> int:
        return self.taken // self.rules.gather

    @property
    def left(self) -> list[int]:
        return sorted([*self.computing, *self.waiting])

    def answer(self) -> None:
        answered = self.turns.answer()
        assert answered == self.waiting[: len(answered)], "who waited longest is first"
        del self.waiting[: len(answered)]
        self.computing.update(dict.fromkeys(answered, self.version))
        assert self.turns.computing == self.computing

    def take(self, number: int) -> None:
        self.staleness.append(self.version - self.computing.pop(number))
        self.waiting.append(number)
        self.taken += 1
        assert self.turns.take(number) is (self.taken % self.rules.gather == 0)
        assert self.turns.version == self.version

    def lose(self, number: int) -> None:
        self.turns.lose(number)
        if self.computing.pop(number, None) is None:
            self.waiting.remove(number)
        assert self.turns.version == self.version
        assert self.turns.deserted is (not self.left)


def walk(rules: Rules, seed: int, losses: float, most: int = 60) -> Iterator[Books]:
    """Let learners come, and go, at random; yield what is known after each time that some were answered."""
    books, draw = Books(rules), random.Random(seed)
    yield books
    for _ in range(most):
        if draw.random() < losses:
            books.lose(draw.choice(books.left))
        else:
            books.take(draw.choice(sorted(books.computing)))
        if not books.left:
            return
        books.answer()
        yield books


@settings(deadline=None, max_examples=300)
@given(rules=RULES, seed=st.integers(0, 10**6), losses=st.sampled_from([0, 0.05, 0.5]))
def test_no_gradient_exceeds_the_bound_and_somebody_always_computes_whoever_comes_and_goes(
    rules: Rules, seed: int, losses: float
) -> None:
    for books in walk(rules, seed, losses):
        assert books.computing
    assert rules.bound is None or max(books.staleness, default=0) <= rules.bound


@settings(deadline=None)
@given(rules=RULES, seed=st.integers(0, 10**6), losses=st.sampled_from([0, 0.1]))
def test_without_a_bound_everybody_is_answered_at_once(rules: Rules, seed: int, losses: float) -> None:
    for books in walk(Rules(rules.learners, rules.gather), seed, losses):
        assert not books.waiting


@settings(deadline=None)
@given(learners=st.integers(1, 7), seed=st.integers(0, 10**6))
def test_synchronous_learners_all_compute_at_one_version_and_an_update_takes_one_gradient_of_each(
    learners: int, seed: int
) -> None:
    came: list[list[int]] = [[]]
    for books in walk(Rules(learners, learners, 0), seed, 0, 5 * learners):
        assert set(books.computing.values()) == {books.version}
        came[-1] = books.waiting.copy() or came[-1]
        if not books.waiting:
            assert sorted(books.computing) == list(range(learners)), "a round begins with everybody"
            came.append([])
    assert books.taken == 5 * learners
    assert set(books.staleness) == {0}
    assert all(len(set(those)) == learners - 1 for those in came[1:-1])


@settings(deadline=None)
@given(learners=st.integers(2, 7), gather=st.integers(1, 8), seed=st.integers(0, 10**6))
def test_with_a_bound_of_nothing_nothing_is_stale_even_where_learners_are_lost(
    learners: int, gather: int, seed: int
) -> None:
    for books in walk(Rules(learners, gather, 0), seed, 0.1):
        assert set(books.computing.values()) == {books.version}
        # As many compute as the update still takes, if there are so many.
        assert len(books.computing) == min(len(books.left), gather - books.taken % gather)
    assert set(books.staleness) <= {0}


def too_stale(rules: Rules, books: Books) -> bool:
    """Whether some gradient could come too late if one more learner were answered: try all orders of arrival."""
    assert rules.bound is not None
    given_out = [*books.computing.values(), books.version]
    return any(
        (books.taken + before) // rules.gather - version > rules.bound
        for order in permutations(given_out)
        for before, version in enumerate(order)
    )


@pytest.mark.parametrize("learners", [1, 2, 3, 4])
@pytest.mark.parametrize("bound", [0, 1, 2])
def test_learners_are_held_back_exactly_where_some_order_of_arrival_would_be_too_late(
    learners: int, bound: int
) -> None:
    held = answered = 0
    for gather in (1, 2, 3, 5) if learners < 4 else (1, 3):
        rules = Rules(learners, gather, bound)
        todo, seen = [Books(rules)], set[object]()
        while todo:
            books = todo.pop()
            stale = tuple(sorted((number, books.version - j) for number, j in books.computing.items()))
            state = (books.taken % gather, stale, tuple(books.waiting))
            if state in seen:
                continue
            seen.add(state)
            if books.waiting:
                assert too_stale(rules, books), "whoever waits had to"
                held += 1
            for number in books.left:
                for move in ("take", "lose"):
                    if move == "take" and number not in books.computing:
                        continue
                    after = deepcopy(books)
                    getattr(after, move)(number)
                    if not after.left:
                        continue
                    # Answer as if by hand, one after another, as long as no order is too late.
                    expected = deepcopy(after)
                    while expected.waiting and not too_stale(rules, expected):
                        expected.computing[expected.waiting.pop(0)] = expected.version
                    answered += len(after.waiting) - len(expected.waiting)
                    after.answer()
                    assert after.computing == expected.computing
                    todo.append(after)
    assert answered
    assert held or learners == 1


def test_a_learner_can_be_lost_once_whether_it_computes_or_waits() -> None:
    turns = Turns(Rules(3, 3, 0))
    turns.answer()
    turns.take(1)
    assert not turns.answer()
    for number in (1, 0):
        turns.lose(number)
        with pytest.raises(ConfigError, match=rf"there is no learner {number} to lose.*of no such run"):
            turns.lose(number)
    assert (turns.computing, turns.deserted) == ({2: 0}, False)
    turns.lose(2)
    assert turns.deserted


def test_those_who_are_left_fill_the_update_of_a_learner_that_is_lost() -> None:
    turns = Turns(Rules(3, 3, 0))
    assert turns.answer() == [0, 1, 2]
    turns.take(2)
    turns.take(0)
    assert turns.answer() == []
    turns.lose(1)
    assert turns.answer() == [2], "one gradient is missing, so one is asked for"
    assert turns.take(2)
    assert turns.answer() == [0, 2]
    assert turns.computing == {0: 1, 2: 1}


# Programs whose order is known


def name(unit: Unit) -> str:
    if unit == OBSERVER:
        return "obs"
    return f"l{unit.group}" if unit.group >= 0 else f"s{unit.stage}"


def told(tags: Iterable[Tag]) -> str:
    """Return messages: ``push0 l0-s0``, and ``push. l0-s0`` for the word that ends an edge."""
    said = [(t.edge.name, "." if t.index == END else t.index, name(t.edge.source), name(t.edge.target)) for t in tags]
    return ", ".join(f"{what}{index} {source}-{target}" for what, index, source, target in said)


def shown(actions: Iterable[Action | Hoped]) -> list[str]:
    """Return actions and messages, ``T0 < push0 l0-s0 > turn0 s0-s1``, and what is hoped for, ``? turn0 s0-s1``."""
    found = []
    for a in actions:
        if isinstance(a, Action):
            needs, sends = told(a.needs), told(a.sends)
            found.append(f"{a}{' < ' if needs else ''}{needs}{' > ' if sends else ''}{sends}")
        else:
            found.append(f"? {told(a)}".strip())
    return found


def letters(actions: Iterable[Action | Hoped]) -> str:
    return " ".join(str(a) if isinstance(a, Action) else "?" for a in actions)


def lines(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def test_a_run_of_two_learners_and_two_servers_that_update_with_every_gradient() -> None:
    program = Ordered(Rules(2, 1), 2, 3, order=order_of("1 0 1"))
    assert [name(unit) for unit in program.agents] == ["s0", "s1", "l0", "l1"]
    assert shown(program.actions(server(0))) == lines("""
        A0 > weights0 s0-l0, weights0 s0-l1
        T0 < push0 l1-s0 > turn0 s0-s1
        U0
        A1 > weights1 s0-l1
        T1 < push0 l0-s0 > turn1 s0-s1
        U1
        A2 > weights1 s0-l0
        T2 < push1 l1-s0 > turn2 s0-s1
        U2
    """)
    assert shown(program.actions(server(1))) == lines("""
        A0 > weights0 s1-l0, weights0 s1-l1
        T0 < push0 l1-s1, turn0 s0-s1
        U0
        A1 > weights1 s1-l1
        T1 < push0 l0-s1, turn1 s0-s1
        U1
        A2 > weights1 s1-l0
        T2 < push1 l1-s1, turn2 s0-s1
        U2
    """)
    assert shown(program.actions(learner(0))) == lines("""
        F0 < weights0 s0-l0, weights0 s1-l0
        B0 > push0 l0-s1, push0 l0-s0
    """)
    assert shown(program.actions(learner(1))) == lines("""
        F0 < weights0 s0-l1, weights0 s1-l1
        B0 > push0 l1-s1, push0 l1-s0
        F1 < weights1 s0-l1, weights1 s1-l1
        B1 > push1 l1-s1, push1 l1-s0
    """)


def test_a_run_of_two_learners_and_two_servers_that_update_with_every_second_gradient_and_are_watched() -> None:
    program = Ordered(Rules(2, 2), 2, 3, Watch(2, 1, 1), order_of("0 0 1 0 1 1"))
    assert [name(unit) for unit in program.agents] == ["s0", "s1", "l0", "l1", "obs"]
    assert shown(program.actions(server(0))) == lines("""
        A0 > weights0 s0-l0, weights0 s0-l1
        T0 < push0 l0-s0 > turn0 s0-s1
        A0 > weights1 s0-l0
        T1 < push1 l0-s0 > turn1 s0-s1
        U0
        A1 > weights2 s0-l0
        V1 > snapshot1 s0-obs
        T2 < push0 l1-s0 > turn2 s0-s1
        A1 > weights1 s0-l1
        T3 < push2 l0-s0 > turn3 s0-s1
        U1
        A2 > weights3 s0-l0
        L1 > report1 s0-obs
        V2 > snapshot2 s0-obs
        T4 < push1 l1-s0 > turn4 s0-s1
        A2 > weights2 s0-l1
        T5 < push2 l1-s0 > turn5 s0-s1
        U2
        L2 > report2 s0-obs
        V3 > snapshot3 s0-obs
    """)
    assert letters(program.actions(server(1))) == letters(program.actions(server(0)))
    assert letters(program.actions(learner(0))) == "F0 B0 F1 B1 F2 B2"
    assert letters(program.actions(learner(1))) == "F0 B0 F1 B1 F2 B2"
    assert shown(program.actions(OBSERVER))[:3] == lines("""
        C1 < snapshot1 s0-obs, snapshot1 s1-obs
        E0
        L1 < report1 s0-obs, report1 s1-obs
    """)


def test_synchronous_learners_take_turns() -> None:
    rules = Rules(3, 3, 0)
    assert in_turn(rules, 2) == order_of("0 1 2 0 1 2")
    program = Ordered(rules, 1, 2, order=in_turn(rules, 2))
    assert shown(program.actions(server(0))) == lines("""
        A0 > weights0 s0-l0, weights0 s0-l1, weights0 s0-l2
        T0 < push0 l0-s0
        T1 < push0 l1-s0
        T2 < push0 l2-s0
        U0
        A1 > weights1 s0-l0, weights1 s0-l1, weights1 s0-l2
        T3 < push1 l0-s0
        T4 < push1 l1-s0
        T5 < push1 l2-s0
        U1
    """)


def test_weights_are_not_sent_after_the_last_update() -> None:
    program = Ordered(Rules(2, 1), 1, 1, order=order_of("0 1 0"))
    assert letters(program.actions(server(0))) == "A0 T0 U0"
    assert letters(program.actions(learner(0))) == "F0 B0"
    assert letters(program.actions(learner(1))) == "", "what comes after the last update is not computed"


def test_a_learner_that_is_lost_is_answered_no_more_and_its_gradients_so_far_count() -> None:
    program = Ordered(Rules(2, 2), 2, 2, order=order_of("1 -1 0 0 0"))
    assert shown(program.actions(server(0))) == lines("""
        A0 > weights0 s0-l0, weights0 s0-l1
        T0 < push0 l1-s0 > turn0 s0-s1
        A0 > weights1 s0-l1
        D1 > turn1 s0-s1
        T2 < push0 l0-s0 > turn2 s0-s1
        U0
        A1 > weights1 s0-l0
        T3 < push1 l0-s0 > turn3 s0-s1
        A1 > weights2 s0-l0
        T4 < push2 l0-s0 > turn4 s0-s1
        U1
    """)
    assert shown(program.actions(server(1)))[3] == "D1 < turn1 s0-s1"
    assert letters(program.actions(learner(1))) == "F0 B0"


def test_a_loss_may_let_another_learner_be_answered() -> None:
    program = Ordered(Rules(2, 1, 0), 1, 2, order=order_of("-0 1 1"))
    assert shown(program.actions(server(0))) == lines("""
        A0 > weights0 s0-l0
        D0
        A0 > weights0 s0-l1
        T1 < push0 l1-s0
        U0
        A1 > weights1 s0-l1
        T2 < push1 l1-s0
        U1
    """)


def test_a_run_without_learners_ends() -> None:
    program = Ordered(Rules(2, 2), 1, 4, order=order_of("0 0 -0 -1"))
    actions = program.actions(server(0))
    assert letters(islice(actions, 8)) == "A0 T0 A0 T1 U0 A1 D0 D1"
    with pytest.raises(PeerLost, match=r"no learner is left \(version: 1, updates: 4\)"):
        next(actions)


@pytest.mark.parametrize(
    ("rules", "order", "message"),
    [
        (Rules(2, 2, 0), "0 0", "learner 0 has no gradient to come at delivery 1"),  # it waits for the other one
        (Rules(2, 1), "0 -1 0 1", "learner 1 has no gradient to come at delivery 3"),
        (Rules(2, 1), "0 2", "learner 2 has no gradient to come at delivery 1"),
        (Rules(2, 1), "-1 0 -1", "there is no learner 1 to lose"),
        (Rules(2, 1), "-2", "there is no learner 2 to lose"),
    ],
)
def test_an_order_that_cannot_be_is_refused(rules: Rules, order: str, message: str) -> None:
    for unit in (server(0), server(1)):
        with pytest.raises(ConfigError, match=f"{message}.*; this order is of no such run"):
            list(Ordered(rules, 2, 5, order=order_of(order)).actions(unit))


@st.composite
def orders(
    draw: st.DrawFn, losses: float = 0.1, some: st.SearchStrategy[Rules] = RULES
) -> tuple[Rules, list[Delivery], int]:
    """Rules, an order of such a run, and its updates."""
    rules = draw(some)
    books, choose, order = Books(rules), random.Random(draw(st.integers(0, 10**6))), list[Delivery]()
    updates = draw(st.integers(1, 5))
    while books.version < updates:
        if choose.random() < losses and len(books.left) > 1:
            order.append(Delivery(choose.choice(books.left), gone=True))
            books.lose(order[-1].learner)
        else:
            order.append(Delivery(choose.choice(sorted(books.computing))))
            books.take(order[-1].learner)
        books.answer()
    return rules, order, updates


WATCHES = st.none() | st.builds(Watch, st.integers(1, 3), st.none() | st.integers(1, 3), st.integers(0, 2))


@settings(deadline=None)
@given(case=orders(), servers=st.integers(1, 3), watch=WATCHES)
def test_an_order_is_run_to_its_end_and_all_that_is_sent_but_the_last_weights_is_used(
    case: tuple[Rules, list[Delivery], int], servers: int, watch: Watch | None
) -> None:
    rules, order, updates = case
    program = Ordered(rules, servers, updates, watch, order)
    sequences = {agent: list(program.actions(agent)) for agent in program.agents}
    assert not dry_run(sequences)
    sent, needed = defaultdict[Edge, list[int]](list), defaultdict[Edge, list[int]](list)
    for agent, actions in sequences.items():
        for tag in (tag for action in actions for tag in action.sends):
            assert tag.edge.source == agent
            sent[tag.edge].append(tag.index)
        for tag in (tag for action in actions for tag in action.needs):
            assert tag.edge in program.inbound(agent)
            needed[tag.edge].append(tag.index)
    for edge in {*sent, *needed}:
        extra = len(sent[edge]) - len(needed[edge])
        assert needed[edge] == sent[edge][: len(needed[edge])]
        assert extra == 0 or (extra == 1 and edge.name == "weights")
    for edge, indices in sent.items():
        if edge.name in ("push", "weights", "turn"):
            assert indices == sorted(set(indices))
    for unit in program.shards:
        assert letters(sequences[unit]) == letters(sequences[DOOR]), "all servers do the same"
    assert Counter(d.learner for d in order if not d.gone) == Counter(
        {unit.group: sum(a.kind is Kind.BACKWARD for a in sequences[unit]) for unit in program.learners}
    )


def test_edges_are_named_once_and_gradients_of_a_learner_share_its_port() -> None:
    program = Ordered(Rules(2, 1), 2, 1, Watch())
    l0, l1, s0, s1 = learner(0), learner(1), server(0), server(1)
    assert program.inbound(s0) == [Edge("push", l0, s0), Edge("push", l1, s0)]
    assert program.inbound(s1) == [Edge("push", l0, s1), Edge("push", l1, s1), Edge("turn", s0, s1)]
    assert program.inbound(l1) == [Edge("weights", s0, l1), Edge("weights", s1, l1)]
    assert {(e.name, name(e.source)) for e in program.inbound(OBSERVER)} == {
        (what, unit) for what in ("report", "snapshot") for unit in ("s0", "s1")
    }
    assert program.port(Edge("push", l0, s0)) == program.port(Edge("push", l0, s1))
    others = [Edge("push", l0, s0), Edge("push", l1, s0), Edge("weights", s0, l0), Edge("weights", s0, l1)]
    assert len({program.port(edge) for edge in others}) == 4
    assert not program.expendable(l0), "the order says who comes"
    assert not program.late()


# Programs whose order the network makes


def arrived(tag: Tag, made: tuple[int, int] | None = None) -> Message:
    return Message(tag, END if tag.index == END else 0, () if made is None else (torch.tensor(made),))


def contents(action: Action) -> tuple[int, int]:
    """Return what a server tells the others at a delivery."""
    gone = action.kind is Kind.DROP
    return (action.index if gone else action.needs[0].edge.source.group), int(gone)


def until_undecided(actions: Iterator[Action | Hoped]) -> list[Action]:
    found = []
    for action in actions:
        if not isinstance(action, Action):
            break
        found.append(action)
    return found


@settings(deadline=None)
@given(case=orders(), servers=st.integers(2, 3), watch=WATCHES, seed=st.integers(0, 10**6))
def test_servers_that_hear_of_gradients_in_some_order_do_what_that_order_says(
    case: tuple[Rules, list[Delivery], int], servers: int, watch: Watch | None, seed: int
) -> None:
    rules, order, updates = case
    for unit in (server(0), server(servers - 1)):
        live = Live(rules, servers, updates, watch)
        actions, draw, found, pushed = live.actions(unit), random.Random(seed), list[Action](), Counter[int]()
        found += until_undecided(actions)
        for k, delivery in enumerate(order):
            if unit != DOOR:
                live.heard(arrived(Tag(Edge("turn", DOOR, unit), k), (delivery.learner, int(delivery.gone))))
            elif delivery.gone:
                live.lost(learner(delivery.learner))
            else:
                live.heard(arrived(Tag(Edge("push", learner(delivery.learner), DOOR), pushed[delivery.learner])))
                pushed[delivery.learner] += 1
            if draw.random() < 0.7:  # a server may lag behind, or be asked again before anything is there
                found += until_undecided(actions)
        found += until_undecided(actions)
        expected = list(Ordered(rules, servers, updates, watch, order).actions(unit))
        assert found[: len(expected)] == expected
        (stop,) = found[len(expected) :]
        assert (stop.kind, stop.index, stop.needs) == (Kind.STOP, updates, ())
        left = [number for number in range(rules.learners) if Delivery(number, gone=True) not in order]
        for number in range(rules.learners):
            if unit != DOOR and number not in left:
                live.lost(learner(number))  # every server finds out by itself
        for edge in [edge for edge in live.inbound(unit) if edge.name == "turn" or edge.source.group in left]:
            assert Tag(edge, END) in next(actions), "servers stay for those that may still be sending"
            live.heard(arrived(Tag(edge, END)))
        assert next(actions, "ended") == "ended"


def test_a_run_of_two_learners_and_two_servers_that_the_network_orders() -> None:
    door, other = Live(Rules(2, 1), 2, 1), Live(Rules(2, 1), 2, 1)
    first, second = door.actions(DOOR), other.actions(server(1))
    assert shown(islice(first, 2)) == lines("""
        A0 > weights0 s0-l0, weights0 s0-l1
        ? push0 l0-s0, push0 l1-s0
    """)
    assert shown(islice(second, 2)) == lines("""
        A0 > weights0 s1-l0, weights0 s1-l1
        ? turn0 s0-s1
    """)
    door.heard(arrived(Tag(Edge("push", learner(1), DOOR), 0)))
    other.heard(arrived(Tag(Edge("push", learner(0), server(1)), 0)))  # who is next is not for this server to say
    assert shown(islice(second, 1)) == ["? turn0 s0-s1"]
    other.heard(arrived(Tag(Edge("turn", DOOR, server(1)), 0), (1, 0)))
    assert shown(islice(first, 4)) == lines("""
        T0 < push0 l1-s0 > turn0 s0-s1
        U0
        X1 > turn. s0-s1, weights. s0-l0, weights. s0-l1
        ? push. l0-s0, push. l1-s0
    """)
    assert shown(islice(second, 4)) == lines("""
        T0 < push0 l1-s1, turn0 s0-s1
        U0
        X1 > weights. s1-l0, weights. s1-l1
        ? push. l0-s1, push. l1-s1, turn. s0-s1
    """)
    for program, unit in ((door, DOOR), (other, server(1))):
        program.heard(arrived(Tag(Edge("push", learner(0), unit), 0)))  # comes too late
        for number in range(2):
            program.heard(arrived(Tag(Edge("push", learner(number), unit), END)))
    assert next(first, "ended") == "ended"
    assert shown(islice(second, 1)) == ["? turn. s0-s1"]
    other.heard(arrived(Tag(Edge("turn", DOOR, server(1)), END)))
    assert next(second, "ended") == "ended"


def test_what_is_hoped_for_is_what_those_will_send_who_compute() -> None:
    program = Live(Rules(2, 1), 1, 9)
    actions = program.actions(DOOR)
    push = [Edge("push", learner(number), DOOR) for number in range(2)]
    assert shown(islice(actions, 2))[1] == "? push0 l0-s0, push0 l1-s0"
    for index in range(2):
        program.heard(arrived(Tag(push[1], index)))
    assert shown(islice(actions, 7))[6] == "? push0 l0-s0, push2 l1-s0"
    program.lost(learner(0))
    assert shown(islice(actions, 2)) == ["D0", "? push2 l1-s0"]
    program = Live(Rules(2, 1), 2, 9)
    actions, turn = program.actions(server(1)), Edge("turn", DOOR, server(1))
    for k, delivery in enumerate(order_of("1 -1 0")):
        program.heard(arrived(Tag(turn, k), (delivery.learner, int(delivery.gone))))
    assert shown(islice(actions, 9))[-1] == "? turn3 s0-s1"


def test_a_learner_computes_once_the_weights_of_all_servers_are_there_until_they_end() -> None:
    program = Live(Rules(2, 1), 2, 3)
    me = learner(1)
    weights = [Edge("weights", server(s), me) for s in range(2)]
    actions = program.actions(me)
    assert shown(islice(actions, 1)) == ["? weights0 s0-l1, weights0 s1-l1"]
    program.heard(arrived(Tag(weights[1], 0)))
    program.heard(arrived(Tag(Edge("weights", server(0), learner(0)), 0)))
    assert shown(islice(actions, 1)) == ["? weights0 s0-l1"]
    program.heard(arrived(Tag(weights[0], 0)))
    assert shown(islice(actions, 3)) == lines("""
        F0 < weights0 s0-l1, weights0 s1-l1
        B0 > push0 l1-s1, push0 l1-s0
        ? weights1 s0-l1, weights1 s1-l1
    """)
    program.heard(arrived(Tag(weights[0], 1)))
    program.heard(arrived(Tag(weights[0], END)))
    assert shown(islice(actions, 1)) == ["? weights1 s1-l1"]
    program.heard(arrived(Tag(weights[1], 1)))
    assert shown(islice(actions, 3)) == lines("""
        F1 < weights1 s0-l1, weights1 s1-l1
        B1 > push1 l1-s1, push1 l1-s0
        ? weights2 s1-l1
    """)
    program.heard(arrived(Tag(weights[1], END)))
    assert shown(actions) == ["X2 > push. l1-s0, push. l1-s1"]


def test_a_learner_does_not_begin_a_batch_once_all_servers_have_ended() -> None:
    program = Live(Rules(1, 1), 1, 1)
    for index in (0, END):
        program.heard(arrived(Tag(Edge("weights", DOOR, learner(0)), index)))
    assert shown(program.actions(learner(0))) == ["X0 > push. l0-s0"]


def test_a_learner_is_lost_once_and_what_comes_of_it_later_does_not_count() -> None:
    program = Live(Rules(2, 1), 1, 3)
    actions = program.actions(DOOR)
    assert program.expendable(learner(0))
    assert not program.expendable(DOOR)
    assert not program.expendable(OBSERVER)
    push = [Edge("push", learner(number), DOOR) for number in range(2)]
    program.heard(arrived(Tag(push[0], 0)))
    program.lost(learner(0))
    program.lost(learner(0))
    program.heard(arrived(Tag(push[0], 1)))
    assert letters(until_undecided(actions)) == "A0 T0 U0 A1 D0", "what had come before counts"
    for index in range(2):
        program.heard(arrived(Tag(push[1], index)))
    assert shown(islice(actions, 7))[5:] == ["X3 > weights. s0-l1", "? push. l1-s0"], "the dead are told nothing"
    program.lost(learner(1))
    assert next(actions, "ended") == "ended", "nobody waits for the goodbye of one that is gone"


def test_servers_whose_last_learner_is_lost_give_up() -> None:
    door, other = Live(Rules(2, 1), 2, 3), Live(Rules(2, 1), 2, 3)
    first, second = door.actions(DOOR), other.actions(server(1))
    assert letters(islice(first, 2)) == letters(islice(second, 2)) == "A0 ?"
    for k, number in enumerate((1, 0)):
        door.lost(learner(number))
        other.heard(arrived(Tag(Edge("turn", DOOR, server(1)), k), (number, 1)))
    for actions in (first, second):
        assert letters(islice(actions, 2)) == "D1 D0"
        with pytest.raises(PeerLost, match="no learner is left"):
            next(actions)


def test_a_server_that_has_made_all_updates_need_not_have_goodbyes() -> None:
    program = Live(Rules(3, 1), 1, 1)
    actions = program.actions(DOOR)
    assert letters(islice(actions, 2)) == "A0 ?"
    assert not program.late()
    assert letters(islice(actions, 1)) == "?", "a gradient must come"
    program.heard(arrived(Tag(Edge("push", learner(1), DOOR), 0)))
    assert letters(islice(actions, 4)) == "T0 U0 X1 ?"
    assert program.late()
    assert next(actions, "ended") == "ended"


def test_an_order_must_be_named_before_servers_and_learners_have_actions() -> None:
    program = Served(Rules(2, 1), 1, 1)
    for call in (program.deliveries, program.learn):
        with pytest.raises(NotImplementedError):
            call(DOOR)


class Processes:
    """A program for every process, and learners and servers on them; messages travel for as long as chance has it."""

    def __init__(self, live: Live, together: bool, seed: int, losses: float) -> None:
        self.draw, self.losses = random.Random(seed), losses
        self.units = live.agents
        one = deepcopy(live)
        self.programs = {unit: one if together and self.shares(unit) else deepcopy(live) for unit in self.units}
        self.actions = {unit: self.programs[unit].actions(unit) for unit in self.units}
        self.there = {edge: deque[Tag]() for unit in self.units for edge in live.inbound(unit)}
        self.sent = 0
        self.flying: list[tuple[int, Message]] = []
        self.reached: Counter[Unit] = Counter()  # the last message of each agent, as it was sent, that has arrived
        self.mourners: list[tuple[Live, Unit]] = []
        self.lost: list[Unit] = []
        self.next: dict[Unit, Action | Hoped] = {}
        self.done: dict[Unit, list[Action]] = {unit: [] for unit in self.units}
        for unit in self.units:
            self.advance(unit)
        while self.actions:
            self.move()

    def shares(self, unit: Unit) -> bool:
        """Return whether a unit lives in one process with others, if any do."""
        return unit.group < 0

    def move(self) -> None:
        """Let something happen that can."""
        if self.draw.random() < self.losses and (alive := [u for u in self.actions if u.group >= 0]):
            self.kill(self.draw.choice(alive))
            return
        due = {unit: action for unit, action in self.next.items() if isinstance(action, Action)}
        ready = [unit for unit, action in due.items() if all(self.there[tag.edge] for tag in action.needs)]
        first = {flight[1].tag.edge: flight for flight in reversed(self.flying)}
        options = [*ready, *first.values(), *self.mourners]
        assert options, f"nobody can go on: {shown(self.next.values())}"
        match self.draw.choice(options):
            case Unit() as unit:
                self.step(unit)
            case (int() as number, message):
                self.flying.remove((number, message))
                self.deliver(number, message)
            case (program, gone):
                self.mourners = [pair for pair in self.mourners if pair[0] is not program or pair[1] != gone]
                program.lost(gone)
                self.decide(program)

    def step(self, unit: Unit) -> None:
        action = self.next[unit]
        assert isinstance(action, Action)
        for tag in action.needs:
            assert self.there[tag.edge].popleft() == tag, "messages come in the order in which they are due"
        self.done[unit].append(action)
        for tag in action.sends:
            self.sent += 1
            self.flying.append((self.sent, self.message(unit, action, tag)))
        self.advance(unit)

    def message(self, unit: Unit, action: Action, tag: Tag) -> Message:
        turn = tag.edge.name == "turn" and tag.index != END
        return arrived(tag, contents(action) if turn else None)

    def deliver(self, number: int, message: Message) -> None:
        source, target = message.tag.edge.source, message.tag.edge.target
        self.reached[source] = max(number, self.reached[source])
        if target not in self.lost:
            self.there[message.tag.edge].append(message.tag)
            self.programs[target].heard(message)
            self.decide(self.programs[target])

    def kill(self, unit: Unit) -> None:
        """End a learner; what was last to leave may be lost, but not what left before something that has arrived."""
        del self.actions[unit], self.next[unit]
        self.lost.append(unit)
        sent = [f for f in self.flying if f[1].tag.edge.source == unit and f[0] > self.reached[unit]]
        for flight in sent[self.draw.randint(0, len(sent)) :]:
            self.flying.remove(flight)
        others = {id(self.programs[u]): self.programs[u] for u in self.actions if u.group < 0}
        self.mourners += [(program, unit) for program in others.values()]

    def decide(self, program: Live) -> None:
        for unit in [unit for unit, action in self.next.items() if not isinstance(action, Action)]:
            if self.programs[unit] is program:
                self.advance(unit)

    def advance(self, unit: Unit) -> None:
        try:
            self.next[unit] = next(self.actions[unit])
        except StopIteration:
            del self.actions[unit], self.next[unit]


@settings(deadline=None, max_examples=200)
@given(
    live=st.builds(Live, RULES, st.integers(1, 3), st.integers(1, 5)),
    together=st.booleans(),
    seed=st.integers(0, 10**6),
    losses=st.sampled_from([0, 0.005, 0.03]),
)
def test_processes_end_in_whatever_order_messages_arrive_and_their_order_repeated_is_the_same_run(
    live: Live, together: bool, seed: int, losses: float
) -> None:
    try:
        run = Processes(live, together, seed, losses)
    except PeerLost:
        assert losses
        return
    order = [
        Delivery(number, bool(gone))
        for number, gone in (contents(a) for a in run.done[DOOR] if a.kind in (Kind.TAKE, Kind.DROP))
    ]
    again = Ordered(live.rules, live.servers, live.updates, order=order)
    for unit in again.shards:
        *done, stop = run.done[unit]
        assert done == list(again.actions(unit))
        assert stop.kind is Kind.STOP
    for unit in again.learners:
        expected = list(again.actions(unit))
        assert run.done[unit][: len(expected)] == expected
        assert unit in run.lost or run.done[unit][-1].kind is Kind.STOP


def test_servers_of_one_process_are_each_told_only_what_is_theirs() -> None:
    program = Live(Rules(2, 1), 2, 3)
    first, second = program.actions(DOOR), program.actions(server(1))
    assert letters(islice(first, 2)) == letters(islice(second, 2)) == "A0 ?"
    program.heard(arrived(Tag(Edge("push", learner(0), server(1)), 0)))
    assert letters(islice(first, 1)) == letters(islice(second, 1)) == "?"
    program.heard(arrived(Tag(Edge("push", learner(0), DOOR), 0)))
    assert letters(islice(second, 1)) == "?"
    assert letters(islice(first, 1)) == "T0"


def test_an_order_that_ends_before_the_run_is_refused() -> None:
    program = Ordered(Rules(2, 1), 1, 5, None, [Delivery(0)])
    with pytest.raises(ConfigError, match=r"the order ends before the run does \(updates: 5\)"):
        list(program.actions(server(0)))


def test_what_is_late_is_excused_once() -> None:
    program = Live(Rules(1, 1), 2, 1)
    assert not program.late(), "nothing is finished"
    actions = program.actions(server(1))
    program.heard(Message(Tag(Edge("turn", server(0), server(1)), 0), 0, (torch.tensor([0, 0]),)))
    assert [action.kind for action in islice(actions, 4) if isinstance(action, Action)] == [
        Kind.ANSWER,
        Kind.TAKE,
        Kind.UPDATE,
        Kind.STOP,
    ]
    assert next(actions) == (Tag(Edge("push", learner(0), server(1)), -1), Tag(Edge("turn", server(0), server(1)), -1))
    assert program.late(), "the goodbye of the learner can be done without"
    assert next(actions) == (Tag(Edge("turn", server(0), server(1)), -1),)
    assert not program.late(), "that of the first server cannot"
