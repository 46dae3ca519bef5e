"""The order of arrivals against an order made by hand, and against a simulation by events."""

import heapq
from collections import Counter, defaultdict, deque
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from itertools import count
from statistics import mean

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stalegrid.observe.timeline import Timeline
from stalegrid.programs.actions import Edge, Kind
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.serving import Ordered, Served
from stalegrid.programs.softsync import Delivery, Rules
from stalegrid.programs.watch import Watch
from stalegrid.timing.arrivals import ServedTimes, drawn
from stalegrid.timing.clock import Clock, TimeModel
from stalegrid.timing.costs import Cost
from stalegrid.timing.disturbances import Disturbances, Jitter, Outage
from stalegrid.timing.links import Link

MS = 1_000_000
USUAL, STEADY = Cost(forward=1, backward=2), Disturbances()
PAIR = Rules(2, 1)


@dataclass(frozen=True)
class World:
    """What a run takes; messages weigh what servers have."""

    rules: Rules
    updates: int = 4
    cost: Cost = USUAL
    shares: tuple[float, ...] = (1.0,)
    handling: float = 0.0
    nbytes: int = 0
    disturbances: Disturbances = STEADY
    watch: Watch | None = None

    @property
    def program(self) -> Served:
        return Served(self.rules, len(self.shares), self.updates, self.watch)

    @property
    def model(self) -> ServedTimes:
        return ServedTimes((self.cost,), 1, self.handling, self.weigh, self.disturbances, self.shares)

    def weigh(self, edge: Edge) -> int:
        if edge.name == "turn":
            return 16
        return int(self.nbytes * self.shares[max(edge.source, edge.target, key=lambda u: -u.group).stage])

    def order(self) -> list[int]:
        found = drawn(self.program, self.model)
        assert not any(delivery.gone for delivery in found)
        return [delivery.learner for delivery in found]


def equal(learners: int, gather: int, updates: int, jitter: float = 0.0, seed: int = 0) -> World:
    """Equal learners and nothing else that takes time."""
    return World(Rules(learners, gather), updates, disturbances=Disturbances(jitter=Jitter(jitter), seed=seed))


def staleness(world: World, order: Iterable[int]) -> tuple[list[int], list[int]]:
    """Return the staleness of each gradient where all are answered at once, and of those under way at the end."""
    version, given_out, found = 0, dict.fromkeys(range(world.rules.learners), 0), []
    for k, number in enumerate(order):
        found.append(version - given_out[number])
        version = (k + 1) // world.rules.gather
        given_out[number] = version
    return found, [version - given for given in given_out.values()]


def dated(program: Ordered, model: TimeModel, timeline: Timeline | None = None) -> Clock:
    """Return a clock that has dated a run in an order that is given."""
    clock = Clock(program, model, timeline)
    actions = {unit: list(program.actions(unit))[::-1] for unit in program.units}
    while any(actions.values()):
        for unit, left in actions.items():
            while left and all(clock.lines[tag.edge].arrivals for tag in left[-1].needs):
                clock.date(unit, left.pop())
    return clock


def lasting(program: Ordered, model: TimeModel) -> int:
    """Return when the last update of a run ends, in virtual nanoseconds."""
    clock = dated(program, model)
    return max(clock.lanes[unit].updates[-1] for unit in program.shards)


def test_a_slower_learner_comes_less_often_and_the_lower_number_is_first_where_two_arrive_at_once() -> None:
    slow = Disturbances(slow={learner(1): 1.5})
    # Learner 0 is there at 3, 6, 9, 12, ... and learner 1 at 4.5, 9, 13.5, 18.
    assert World(PAIR, updates=10, disturbances=slow).order() == [0, 1, 0, 0, 1, 0, 1, 0, 0, 1]


def test_a_run_lasts_until_its_last_update_in_whichever_order_gradients_are_taken() -> None:
    world = World(PAIR, 3, Cost(forward=1, backward=2, update=0.5), disturbances=Disturbances(slow={learner(1): 2.0}))
    for text, ended in (("0 0 1", 7.5), ("1 0 0", 10.5), ("0 1 0", 7), ("1 1 0", 13.5), ("0 -1 0 0", 10.5)):
        order = [Delivery(int(entry.removeprefix("-")), entry.startswith("-")) for entry in text.split()]
        assert lasting(Ordered(world.rules, 1, 3, None, order), world.model) == ended * MS


def test_equal_learners_come_in_turn() -> None:
    for gather in (1, 2, 3):
        assert equal(3, gather, 4).order() == [0, 1, 2] * 4 if gather == 3 else [0, 1, 2, 0]
    assert equal(3, 1, 7).order() == [0, 1, 2, 0, 1, 2, 0]
    assert equal(3, 2, 3).order() == [0, 1, 2, 0, 1, 2]


def test_a_learner_that_is_held_back_comes_later() -> None:
    slow = Disturbances(slow={learner(1): 3.0})
    free = World(PAIR, 5, disturbances=slow)
    assert free.order() == [0, 0, 0, 1, 0]  # at 3, 6, 9, 9, 12
    assert replace(free, rules=Rules(2, 1, 1)).order() == [0, 1, 0, 1, 0]  # learner 0 waits for it from 3 on
    assert replace(free, rules=Rules(2, 1, 2)).order() == [0, 0, 1, 0, 0]


def test_learners_wait_while_a_server_is_busy() -> None:
    slow = Disturbances(slow={learner(1): 4 / 3})
    free = World(PAIR, updates=7, disturbances=slow)
    assert free.order() == [0, 1, 0, 1, 0, 0, 1]  # at 3, 4, 6, 8, 9, 12, 12
    # A gradient takes 2 ms and its update 1 ms: learner 0 is answered at 6, 12, 19 and comes at 3, 9, 15, 22; learner 1
    # is answered at 9, 16 and comes at 4, 13, 20.
    busy = replace(free, cost=replace(free.cost, mix=2, update=1))
    assert busy.order() == [0, 1, 0, 1, 0, 1, 0]
    # Only every second gradient is updated with, in 1 ms: learner 1 is answered at 5, and comes at 9 as learner 0 does.
    pairs = replace(free, rules=Rules(2, 2), updates=3)
    assert replace(pairs, cost=replace(free.cost, update=1)).order() == [0, 1, 0, 0, 1, 0]
    assert pairs.order() == [0, 1, 0, 1, 0, 0]


def test_the_first_server_decides_whatever_reaches_the_others_before() -> None:
    # Learner 0 reaches the second server at 3, and the first one at 5; learner 1 reaches both at 4.
    late = Disturbances(slow={learner(1): 4 / 3}, outages=(Outage(learner(0), server(0), 2, 5),))
    assert World(PAIR, 2, shares=(0.5, 0.5), disturbances=late).order() == [1, 0]
    assert World(PAIR, 2, shares=(0.5, 0.5), disturbances=replace(late, outages=())).order() == [0, 1]


def test_a_server_takes_its_share_of_an_exchange_and_of_an_update_and_others_take_what_they_do_in_a_grid() -> None:
    cost = Cost(forward=1, backward=2, mix=4, update=8)
    model = World(PAIR, cost=cost, shares=(0.25, 0.75), disturbances=Disturbances(slow={server(1): 2.0})).model
    taken = [
        [model.pace(unit).of(kind) / MS for kind in (Kind.FORWARD, Kind.BACKWARD, Kind.TAKE, Kind.UPDATE, Kind.ANSWER)]
        for unit in (server(0), server(1), learner(3), OBSERVER)
    ]
    assert taken == [[0, 0, 1, 2, 0], [0, 0, 6, 12, 0], [1, 2, 0, 8, 0], [0] * 5]


# The same by events.  Time goes on from event to event; learners, servers, ports and messages are little processes
# that sleep until a time, or until something comes for them.

LAST = "until all else has happened that happens now"
Process = Generator[int | str | None, None, None]


@dataclass
class Books:
    """What a server knows: who computes at which version, and who waits."""

    rules: Rules
    taken: int = 0
    computing: dict[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.waiting = deque(range(self.rules.learners))

    @property
    def version(self) -> int:
        return self.taken // self.rules.gather

    def answered(self) -> list[int]:
        found: list[int] = []
        while self.waiting and not self._late():
            found.append(self.waiting.popleft())
            self.computing[found[-1]] = self.version
        return found

    def take(self, number: int) -> bool:
        """Note a gradient; return whether it completes an update."""
        del self.computing[number]
        self.waiting.append(number)
        self.taken += 1
        return self.taken % self.rules.gather == 0

    def _late(self) -> bool:
        """Whether the oldest could be too stale, were one more to compute and the oldest to come last."""
        if self.rules.bound is None:
            return False
        oldest = min(self.computing.values(), default=self.version)
        return (self.taken + len(self.computing)) // self.rules.gather - oldest > self.rules.bound


class Events:
    """Runs learners and servers by events."""

    def __init__(self, world: World) -> None:
        self.world, self.now, self.order, self.ended = world, 0, list[int](), 0
        self._number = count()
        self._queue: list[tuple[int, bool, int, object, Process]] = []
        self._asleep: dict[object, Process] = {}
        self._mail: dict[Edge, deque[int]] = defaultdict(deque)
        self._ports: dict[Unit, deque[Edge]] = defaultdict(deque)
        self._servers = [server(s) for s in range(len(world.shares))]
        self._learners = [learner(number) for number in range(world.rules.learners)]
        units = [*self._servers, *self._learners]
        self._draws = {u: world.disturbances.jitter.draws(world.disturbances.seed, u) for u in units}
        for unit in units:
            self._wake(0, unit, self._serve(unit) if unit in self._servers else self._learn(unit))
            self._wake(0, ("port", unit), self._send(unit))
        while self._queue:
            self.now, _, _, who, process = heapq.heappop(self._queue)
            until = next(process, "ended")
            if until is None:
                self._asleep[who] = process
            elif until == LAST:
                self._wake(self.now, who, process, last=True)
            elif isinstance(until, int):
                self._wake(until, who, process)

    def _wake(self, time: int, who: object, process: Process, last: bool = False) -> None:
        heapq.heappush(self._queue, (time, last, next(self._number), who, process))

    def _call(self, who: object) -> None:
        if who in self._asleep:
            self._wake(self.now, who, self._asleep.pop(who))

    def _learn(self, me: Unit) -> Process:
        weights = [Edge("weights", one, me) for one in self._servers]
        while True:
            yield from self._receive(weights)
            yield from self._work(me, self.world.cost.forward)
            yield from self._work(me, self.world.cost.backward)
            for one in reversed(self._servers):
                yield from self._hand_over(Edge("push", me, one))

    def _serve(self, me: Unit) -> Process:
        world, share, door = self.world, self.world.shares[me.stage], self._servers[0]
        books = Books(world.rules)
        turn = Edge("turn", door, me)
        pushes = [Edge("push", one, me) for one in self._learners]
        yield from self._answer(me, books)
        for k in range(world.updates * world.rules.gather):
            if me == door:
                while not any(self._mail[push] for push in pushes):
                    yield None
                yield LAST
                _, number = min((self._mail[push][0], n) for n, push in enumerate(pushes) if self._mail[push])
                self.order.append(number)
                yield from self._receive([pushes[number]])
            else:
                while not self._mail[turn]:
                    yield None
                number = self.order[k]
                yield from self._receive([pushes[number], turn])
            yield from self._work(me, world.cost.mix * share)
            if me == door:
                for other in self._servers[1:]:
                    yield from self._hand_over(Edge("turn", me, other))
            if books.take(number):
                yield from self._work(me, world.cost.update * share)
                self.ended = self.now
            if books.version < world.updates:
                yield from self._answer(me, books)

    def _answer(self, me: Unit, books: Books) -> Process:
        for number in books.answered():
            yield from self._hand_over(Edge("weights", me, learner(number)))

    def _receive(self, edges: list[Edge]) -> Process:
        while not all(self._mail[edge] for edge in edges):
            yield None
        for edge in edges:
            self._mail[edge].popleft()
            yield self.now + self._handled(edge)

    def _work(self, me: Unit, milliseconds: float) -> Process:
        if usual := round(milliseconds * MS):
            factor, stall = next(self._draws[me])
            yield self.now + round(usual * self.world.disturbances.slow.get(me, 1.0) * factor) + stall

    def _hand_over(self, edge: Edge) -> Process:
        yield self.now + self._handled(edge)
        if self._occupied(edge):
            self._ports[edge.source].append(edge)
            self._call(("port", edge.source))
        else:
            self._wake(self.now, object(), self._fly(edge))

    def _send(self, me: Unit) -> Process:
        while True:
            while not self._ports[me]:
                yield None
            edge = self._ports[me].popleft()
            yield self.now + self._occupied(edge)
            self._wake(self.now, object(), self._fly(edge))

    def _fly(self, edge: Edge) -> Process:
        yield self.now + round(self.world.disturbances.link.latency * MS)
        self._mail[edge].append(self.now)
        self._call(edge.target)

    def _handled(self, edge: Edge) -> int:
        return round(self.world.weigh(edge) * self.world.handling)  # ms a MB are ns a byte

    def _occupied(self, edge: Edge) -> int:
        mbits = self.world.disturbances.link.mbits
        return 0 if mbits == float("inf") else round(self.world.weigh(edge) * 8000 / mbits)


def halves(most: int, least: int = 0) -> st.SearchStrategy[float]:
    return st.integers(least, most).map(lambda n: n / 2)


@st.composite
def worlds(draw: st.DrawFn) -> World:
    learners = draw(st.integers(1, 5))
    shares = draw(st.sampled_from([(1.0,), (0.5, 0.5), (0.25, 0.75), (0.75, 0.25), (0.25, 0.5, 0.25)]))
    units = [*map(learner, range(learners)), *map(server, range(len(shares)))]
    factors = st.sampled_from([0.5, 1.25, 1.5, 2.0, 3.5])
    disturbances = Disturbances(
        link=draw(st.builds(Link, halves(4), st.sampled_from([float("inf"), 8.0]))),
        jitter=draw(st.sampled_from([Jitter(), Jitter(0.5, 0.2, 2.0)])),
        slow=draw(st.dictionaries(st.sampled_from(units), factors, max_size=4)),
        seed=draw(st.integers(0, 99)),
    )
    cost = st.builds(Cost, forward=halves(6, 1), backward=halves(6, 1), update=halves(4), mix=halves(4))
    return World(
        Rules(learners, draw(st.integers(1, learners + 1)), draw(st.none() | st.integers(0, 3))),
        draw(st.integers(1, 8)),
        draw(cost),
        shares,
        draw(st.sampled_from([0.0, 500.0])),
        draw(st.sampled_from([0, 400, 1200])),
        disturbances,
        draw(st.sampled_from([None, Watch(1, 1, 1)])),
    )


@settings(deadline=None, max_examples=200)
@given(world=worlds())
def test_gradients_arrive_and_the_run_ends_as_in_a_simulation_by_events(world: World) -> None:
    events = Events(world)
    assert world.order() == events.order
    program = Ordered(world.rules, len(world.shares), world.updates, world.watch, drawn(world.program, world.model))
    assert lasting(program, world.model) == events.ended


@settings(deadline=None, max_examples=60)
@given(world=worlds())
def test_a_run_in_this_order_takes_gradients_in_the_order_in_which_they_arrive(world: World) -> None:
    order = drawn(world.program, world.model)
    program = Ordered(world.rules, len(world.shares), world.updates, world.watch, order)
    timeline = Timeline()
    dated(program, world.model, timeline)
    taken, used = Counter[int](), []
    for delivery in order:
        push = Edge("push", learner(delivery.learner), server(0))
        used.append((timeline.arrivals[push, taken[delivery.learner]], delivery.learner))
        taken[delivery.learner] += 1
    assert used == sorted(used)


@settings(deadline=None, max_examples=60)
@given(world=worlds())
def test_arrivals_are_those_of_whole_updates_and_within_the_bound(world: World) -> None:
    order = world.order()
    assert len(order) == world.updates * world.rules.gather
    assert drawn(world.program, world.model) == drawn(world.program, world.model)
    if world.rules.bound is None:
        return
    books = Books(world.rules)
    for number in order:
        books.answered()
        assert books.version - books.computing[number] <= world.rules.bound
        books.take(number)


def test_what_is_drawn_depends_on_the_seed_where_devices_are_not_steady() -> None:
    shaky = [equal(5, 1, 40, 0.3, seed).order() for seed in (0, 0, 1)]
    assert shaky[0] == shaky[1] != shaky[2]
    steady = [equal(5, 1, 40, 0, seed).order() for seed in (0, 1)]
    assert steady[0] == steady[1]


@pytest.mark.parametrize(("n", "updates"), [(1, 200), (15, 300), (30, 600)])
def test_thirty_equal_learners_are_about_n_updates_stale_and_never_more_than_twice_that(n: int, updates: int) -> None:
    # arXiv 1511.05950: in n-softsync tau is in {0, ..., 2n}, and n in the mean.
    world = equal(30, 30 // n, updates, 0.1)
    found, under_way = staleness(world, world.order())
    # At each update 29 learners compute, whose gradients thereby get staler by one; the sum is exact.
    assert sum(found) + sum(under_way) == 29 * updates
    settled = found[len(found) // 3 :]
    assert mean(settled) == pytest.approx(n - n / 30, rel=0.03)
    assert n < max(found) <= 2 * n
    assert min(settled) < n
    order = world.order()
    most, least = max(Counter(order).values()), min(Counter(order).values())
    assert most - least <= 0.1 * len(order) / 30 + 3, "they are equal"
    if n > 1:
        assert order[:300] != [*range(30)] * 10, "but not in step"
