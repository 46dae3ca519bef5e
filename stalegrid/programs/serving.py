"""What is due at parameter servers and learners, given the order in which gradients arrive.

Does not know: tensors, time, where that order comes from: virtual time, a record, or the network.

Whose gradient a server takes next is the one thing that the program leaves free.  With an order of deliveries this is a
network like any other.  Every server runs, with ``c`` gradients an update::

    [A]                           answer: the weights of now to learners that may have them
    for the delivery k of learner l:
        T(k)                      take the gradient
        U(n)                      after every c-th
        [A]
        [L(n)] [V(n+1)]           report, snapshot

and every learner ``F(b) B(b)`` for its batches b: a forward needs the weights of every server, a backward sends a part
of the gradient to each.  The first server decides, and tells the others whom it took; so all shards of the parameters
go through the same versions, and their number changes nothing.

Were each server to take gradients as they come, a gradient would have as many stalenesses as there are servers, and a
bound could deadlock: one learner is answered by one server and held back by another, a second one the other way round.
The price is a small message a gradient between servers.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from stalegrid.errors import ConfigError, PeerLost
from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.agenda import Agenda
from stalegrid.programs.grid import OBSERVER, Unit, learner, server
from stalegrid.programs.softsync import Delivery, Rules, Turns
from stalegrid.programs.watch import Watch, watched

DOOR = server(0)
"""The server that decides whose gradient is next."""


@dataclass
class Served(Agenda):
    """The action sequences of servers and learners; who makes an order inherits.

    Args:
        rules: when servers update, and whom they answer.
        servers: over which the parameters are split.
        updates: N.
        watch: what the observer sees; None for no observer.
    """

    rules: Rules
    servers: int
    updates: int
    watch: Watch | None = None

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
            return watched(self.shards)
        if agent in self.shards:
            pushes = [Edge("push", unit, agent) for unit in self.learners]
            return [*pushes, *([] if agent == DOOR else [Edge("turn", DOOR, agent)])]
        return [Edge("weights", shard, agent) for shard in self.shards]

    def actions(self, agent: Unit) -> Iterator[Action | Hoped]:
        """Yield the agent's actions from the first to the last; where the next is not known yet, what may arrive."""
        if agent == OBSERVER:
            assert self.watch is not None
            return self.watch.actions(self.shards, self.updates)
        return self.serve(agent, self.deliveries(agent)) if agent in self.shards else self.learn(agent)

    def port(self, edge: Edge) -> object:
        """Return what the messages of a learner's last backward share: they leave one after another."""
        return edge.source if edge.name == "push" else edge

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
            elif delivery.gone:
                yield from service.lose(delivery.learner)
            else:
                yield from service.take(delivery.learner)
            if service.finished:
                return
        raise ConfigError(f"the order ends before the run does (updates: {self.updates}); it is of a shorter run")

    def batch(self, unit: Unit, index: int) -> Iterator[Action]:
        """Yield what a learner does with one batch."""
        yield Action(Kind.FORWARD, index, tuple(Tag(edge, index) for edge in self._weights(unit)))
        # To the first server last, one after another: what it takes, the others have or are about to get, even if the
        # learner dies.  (A network may still drop what was handed to it; then the deadline ends the run.)
        parts = tuple(Tag(Edge("push", unit, shard), index) for shard in reversed(self.shards))
        yield Action(Kind.BACKWARD, index, sends=parts)

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
        """Whether all updates are made."""
        return self._turns.version == self._program.updates

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

    def take(self, number: int) -> Iterator[Action]:
        """Yield what is due when the gradient of a learner is next."""
        turns, program = self._turns, self._program
        if number not in turns.computing:
            raise ConfigError(
                f"learner {number} has no gradient to come at delivery {self._number}; this order is of no such run"
            )
        yield self._told(Kind.TAKE, self._number, self._push(number))
        updated = turns.take(number)
        if updated:
            yield Action(Kind.UPDATE, turns.version - 1)
        # After the last update nobody is answered: the gradient would be of no use.
        if not self.finished:
            yield from self.answer()
        if updated and program.watch is not None:
            yield from program.watch.seen(self._unit, turns.version - 1, program.updates)

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
    """Servers and learners whose order is known.

    Args:
        order: of all deliveries of the run.
    """

    order: Sequence[Delivery] = ()

    def __post_init__(self) -> None:
        # What the record of a longer run says of later updates is nobody's batch here.
        taken = [d.learner for d in self.order if not d.gone][: self.updates * self.rules.gather]
        self._batches = Counter(taken)

    def deliveries(self, unit: Unit) -> Iterator[Delivery]:
        """Yield the order."""
        return iter(self.order)

    def learn(self, unit: Unit) -> Iterator[Action]:
        """Yield the actions of a learner: for each of its gradients in the order."""
        for index in range(self._batches[unit.group]):
            yield from self.batch(unit, index)


def in_turn(rules: Rules, updates: int) -> list[Delivery]:
    """Return the order in which the learners come one after another: that of synchronous training.

    In the order of learners and not of arrival, so that no timing can change the bits and nobody need write a record;
    the server may idle meanwhile, though later learners' gradients are there.
    """
    return [Delivery(number) for _ in range(updates) for number in range(rules.learners)]
