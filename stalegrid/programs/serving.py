"""What is due at parameter servers and learners, given the order in which gradients arrive.

Does not know: tensors, time, where that order comes from: virtual time, a record, or the network.

Whose gradient a server takes next is the one thing that the program leaves free.  With an order of deliveries this is a
network like any other.  Every server runs, with ``c`` gradients an update::

    [A]                           answer: the weights of now to learners that may have them
    for the delivery k of learner l:
        T(k)                      take the gradient
        U(n)                      after every c-th
        [P(n+1)]                  save
        [A]
        [L(n)] [V(n+1)]           report, snapshot

and every learner ``F(b) B(b)`` for its batches b: a forward needs the weights of every server, a backward sends a part
of the gradient to each.  The first server decides, and tells the others whom it took; so all shards of the parameters
go through the same versions, and their number changes nothing.

Were each server to take gradients as they come, a gradient would have as many stalenesses as there are servers, and a
bound could deadlock: one learner is answered by one server and held back by another, a second one the other way round.
The price is a small message a gradient between servers.

Servers save version n before they answer with it.  So an answer comes before the cut if and only if its version is
lower, and a learner knows by that alone when to save itself: before its first forward of version n or later.  What it
computes on before is taken by all or by none: its last gradient is the one message that may cross a cut.  Whether it
does is known from the order of deliveries, which a run that goes on is given up to there.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import chain

from stalegrid.errors import ConfigError, PeerLost
from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.agenda import Agenda
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.saving import Saves
from stalegrid.programs.softsync import Delivery, Rules, Turns
from stalegrid.programs.watch import Watch

DOOR = server(0)
"""The server that decides whose gradient is next."""

GONE = 1
"""What it tells the others of a learner, beside what is asked of the run, added up: that it was found to be gone."""


@dataclass
class Served(Agenda):
    """The action sequences of servers and learners; who makes an order inherits.

    Args:
        rules: when servers update, and whom they answer.
        servers: over which the parameters are split.
        updates: N.
        watch: what the observer sees; None for no observer.
        order: of deliveries, as far as it is known: at least up to where the run goes on from.
        saves: when it is saved, and from where it goes on.
    """

    rules: Rules
    servers: int
    updates: int
    watch: Watch | None = None
    order: Sequence[Delivery] = ()
    saves: Saves = field(default=Saves(), kw_only=True)

    @cached_property
    def cut(self) -> "Service":
        """What the first server knows where the run goes on from, or at its beginning.

        Raises:
            ConfigError: the order does not reach so far.
        """
        service, since = Service(self, DOOR), self.saves.since
        if not since:
            return service
        for action in chain(service.answer(), chain.from_iterable(map(service.follow, self.order))):
            if action.kind is Kind.SAVE and action.index == since:
                return service
        raise ConfigError(f"the order of deliveries ends before the version that the run goes on from ({since})")

    @property
    def units(self) -> list[Unit]:
        """Servers, then learners."""
        return [*self.shards, *self.learners]

    @property
    def learners(self) -> list[Unit]:
        """The learners."""
        return [learner(number) for number in range(self.rules.learners)]

    @property
    def shards(self) -> list[Unit]:
        """The servers."""
        return [server(s) for s in range(self.servers)]

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        if agent == OBSERVER:
            return [] if self.watch is None else self.watch.inbound(self.shards, agent)
        if agent in self.shards:
            pushes = [Edge("push", unit, agent) for unit in self.learners]
            return [*pushes, *([] if agent == DOOR else [Edge("turn", DOOR, agent)])]
        return [Edge("weights", shard, agent) for shard in self.shards]

    def actions(self, agent: Unit) -> Iterator[Action | Hoped]:
        """Yield the agent's actions from the first to the last; where the next is not known yet, what may arrive."""
        if agent in self.learners:
            return self.learn(agent)
        whole = self._look() if agent == OBSERVER else self.serve(agent, self.deliveries(agent))
        return self._since(whole) if self.saves.since else whole

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message may be under way: a learner's last gradient at any."""
        return range(1, self.updates if tag.edge.name == "push" else 1)

    def may_cross(self, tag: Tag) -> bool:
        """Return whether a message may be under way at a version that is saved."""
        return tag.edge.name == "push" and self.saves.every is not None

    def outlived(self, tag: Tag) -> Tag | None:
        """Return the gradient before: it was taken before its learner was answered again."""
        return Tag(tag.edge, tag.index - 1)

    def port(self, edge: Edge) -> object:
        """Return what the messages of a learner's last backward share: they leave one after another."""
        return edge.source if edge.name == "push" else edge

    def taken(self, version: int) -> None:
        """Take note that the first server has taken a gradient of the update that makes a version."""

    def deliveries(self, unit: Unit) -> Iterator[Delivery | None]:
        """Yield the order in which a server takes gradients; None where the next is not known yet."""
        raise NotImplementedError

    def learn(self, unit: Unit) -> Iterator[Action | Hoped]:
        """Yield the actions of a learner."""
        raise NotImplementedError

    def serve(self, unit: Unit, deliveries: Iterable[Delivery | None]) -> Iterator[Action | Hoped]:
        """Yield the actions of a server, given an order.

        Raises:
            PeerLost: no learner is left.
            ConfigError: the order is none of such a run.
        """
        service = Service(self, unit)
        yield from service.answer()
        for delivery in deliveries:
            if delivery is None:
                yield service.hoped()
            else:
                yield from service.follow(delivery)
            if service.finished:
                return
        raise ConfigError(f"the order ends before the run does (updates: {self.updates}); it is of a shorter run")

    def batch(self, unit: Unit, index: int) -> Iterator[Action]:
        """Yield what a learner does with one batch."""
        yield Action(Kind.FORWARD, index, tuple(Tag(edge, index) for edge in self._weights(unit)))
        yield Action(Kind.BACKWARD, index, sends=self._parts(unit, index))

    def load(self, unit: Unit, batches: int | None = None) -> Iterator[Action]:
        """Yield what a learner that goes on begins with: servers that had not taken its last gradient get it again.

        Args:
            unit: the learner.
            batches: that it has in the whole run; None where nobody knows.
        """
        last = self.cut.given(unit.group) - 1
        crosses = unit.group in self.cut.computing and (batches is None or last < batches)
        if self.saves.since:
            yield Action(Kind.LOAD, self.saves.since, sends=self._parts(unit, last) if crosses else ())

    def kept(self, known: int, version: int) -> Iterator[Action]:
        """Yield the saves of a learner whose weights had a version, and are about to have another one."""
        return (Action(Kind.SAVE, n) for n in range(known + 1, version + 1) if self.saved(n))

    def _look(self) -> Iterator[Action | Hoped]:
        """Yield the observer's actions: it is saved before it hears of a version, as servers are before they report."""
        assert self.watch is not None
        for n in range(self.updates):
            if self.saved(n + 1):
                yield Action(Kind.SAVE, n + 1)
            yield from self.watch.heard(self.shards, n, self.updates)

    def _since(self, actions: Iterator[Action | Hoped]) -> Iterator[Action | Hoped]:
        """Yield what an agent does from the save on that the run goes on from."""
        since = self.saves.since
        for action in actions:
            if isinstance(action, Action) and action.kind is Kind.SAVE and action.index == since:
                break
        yield Action(Kind.LOAD, since)
        yield from actions

    def _parts(self, unit: Unit, index: int) -> tuple[Tag, ...]:
        # To the first server last, one after another: what it takes, the others have or are about to get, even if the
        # learner dies.  (A network may still drop what was handed to it; then the deadline ends the run.)
        return tuple(Tag(Edge("push", unit, shard), index) for shard in reversed(self.shards))

    def _weights(self, unit: Unit) -> list[Edge]:
        return [Edge("weights", shard, unit) for shard in self.shards]


class Service:
    """The actions of one server, delivery after delivery.

    Args:
        program: of the run.
        unit: the server.
    """

    def __init__(self, program: Served, unit: Unit) -> None:
        self._program = program
        self._unit = unit
        self._turns = Turns(program.rules)
        self._given = Counter[int]()  # answers to each learner
        self._number = 0  # of the next delivery

    @property
    def finished(self) -> bool:
        """Whether all updates are made, or the run leaves."""
        return self._turns.version in (self._program.updates, self._program.left)

    @property
    def computing(self) -> set[int]:
        """Learners whose gradient is to come."""
        return set(self._turns.computing)

    @property
    def gone(self) -> set[int]:
        """Learners that were found to be gone."""
        return self._turns.gone

    def given(self, number: int) -> int:
        """Return how often a learner was answered."""
        return self._given[number]

    def hoped(self) -> Hoped:
        """Return what may settle which delivery is next."""
        if self._unit != DOOR:
            return (Tag(Edge("turn", DOOR, self._unit), self._number),)
        return tuple(self._push(number) for number in self._turns.computing)

    def answer(self) -> Iterator[Action]:
        """Yield the answer to the learners that may have the present version, if there are such."""
        answered = self._turns.answer()
        if answered:
            tags = tuple(Tag(Edge("weights", self._unit, learner(n)), self._given[n]) for n in answered)
            self._given.update(answered)
            yield Action(Kind.ANSWER, self._turns.version, sends=tags)

    def follow(self, delivery: Delivery) -> Iterator[Action]:
        """Yield what is due at a delivery."""
        return (self.lose if delivery.gone else self.take)(delivery.learner)

    def take(self, number: int) -> Iterator[Action]:
        """Yield what is due when the gradient of a learner is next."""
        turns, program = self._turns, self._program
        if number not in turns.computing:
            raise ConfigError(
                f"learner {number} has no gradient to come at delivery {self._number}; this order is of no such run"
            )
        yield self._told(Kind.TAKE, self._number, self._push(number))
        if self._unit == DOOR:
            program.taken(turns.version + 1)
        updated = turns.take(number)
        if updated:
            yield Action(Kind.UPDATE, turns.version - 1)
            if program.saved(turns.version):
                yield Action(Kind.SAVE, turns.version)
        # After the last update nobody is answered: the gradient would be of no use.
        if not self.finished:
            yield from self.answer()
        # Where the run leaves, whoever goes on does all that comes after the save.
        if updated and program.watch is not None and turns.version != program.left:
            yield from program.watch.seen(self._unit, program.shards, turns.version - 1, program.updates)

    def lose(self, number: int) -> Iterator[Action]:
        """Yield what is due when a learner was found to be gone."""
        self._turns.lose(number)
        yield self._told(Kind.DROP, number)
        if self._turns.deserted:
            raise PeerLost(f"no learner is left (version: {self._turns.version}, updates: {self._program.updates})")
        yield from self.answer()

    def _push(self, number: int) -> Tag:
        # A learner has one gradient under way: that of the batch it was last answered for.
        return Tag(Edge("push", learner(number), self._unit), self._given[number] - 1)

    def _told(self, kind: Kind, index: int, *needs: Tag) -> Action:
        """Return what servers do at a delivery: the first one tells the others of it."""
        k, self._number = self._number, self._number + 1
        if self._unit == DOOR:
            others = self._program.shards[1:]
            return Action(kind, index, needs, tuple(Tag(Edge("turn", DOOR, shard), k) for shard in others))
        return Action(kind, index, (*needs, Tag(Edge("turn", DOOR, self._unit), k)))


@dataclass
class Ordered(Served):
    """Servers and learners whose order is known, of all deliveries of the run."""

    def __post_init__(self) -> None:
        # What the record of a longer run says of later updates is nobody's batch here.
        taken = [d.learner for d in self.order if not d.gone][: self.updates * self.rules.gather]
        self._batches = Counter(taken)

    def deliveries(self, unit: Unit) -> Iterator[Delivery]:
        """Yield the order."""
        return iter(self.order)

    def learn(self, unit: Unit) -> Iterator[Action]:
        """Yield the actions of a learner: for each of its gradients in the order."""
        number, known = unit.group, self.saves.since
        if number in self.cut.gone:
            return
        batches = self._batches[number]
        yield from self.load(unit, batches)
        for index in range(self.cut.given(number), batches):
            if self.saves.every is not None:
                version = self._answers[number][index]
                yield from self.kept(known, version)
                known = version
            yield from self.batch(unit, index)
        if self.saves.every is not None:
            yield from self.kept(known, self._ends.get(number, self.updates))

    @cached_property
    def _answers(self) -> dict[int, list[int]]:
        """The versions at which each learner is answered."""
        found: dict[int, list[int]] = defaultdict(list)
        for action in self._served:
            for tag in action.sends if action.kind is Kind.ANSWER else ():
                found[tag.edge.target.group].append(action.index)
        return found

    @cached_property
    def _ends(self) -> dict[int, int]:
        """The versions at which learners are found to be gone."""
        version, found = 0, {}
        for action in self._served:
            version += action.kind is Kind.UPDATE
            if action.kind is Kind.DROP:
                found[action.index] = version
        return found

    @property
    def _served(self) -> Iterator[Action]:
        """What the first server does."""
        return (action for action in self.serve(DOOR, self.order) if isinstance(action, Action))


def in_turn(rules: Rules, updates: int) -> list[Delivery]:
    """Return the order in which the learners come one after another: that of synchronous training.

    In the order of learners and not of arrival, so that no timing can change the bits and nobody need write a record;
    the server may idle meanwhile, though later learners' gradients are there.
    """
    return [Delivery(number) for _ in range(updates) for number in range(rules.learners)]
