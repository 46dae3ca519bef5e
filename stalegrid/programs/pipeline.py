"""What is due: the sequence of actions of every agent, and the messages between them.

Does not know: tensors, time, ranks, what an action computes.

A grid of units is a Kahn process network: every agent runs one fixed sequence of actions, every message travels on
one first-in first-out edge, so what is computed depends on these sequences alone and never on timing.  Unit (s,k)
runs, with ``w`` batches in flight before the first backward::

    for n = 0, 1, ..., N-1:                       one round an update; from where the run begins
        [S(n)]                                    share with other groups, where mixing wants it early
        for each of the M batches b of update n:
            F(...)  until min(b + w, limit) forwards are issued
            [G(b)]                                forward again, where the view makes graphs late
            B(b)
        [S(n) R(n) M(n)]  U(n)  [S(n) R(n) M(n)]  update; lateral actions around it
        [L(n)] [V(n+1)]                           report, snapshot, or what :mod:`stalegrid.programs.through` says
        [P(n+1)]                                  save; see :mod:`stalegrid.programs.saving`

A forward or backward may also carry what stages share that use the same parameter; :mod:`stalegrid.programs.ties` says
what, and why nothing waits for it.  With ``w = m_k + 1`` and no flush this is fully decoupled backpropagation with
staleness ``m_k``; with a flush (no forward crosses an update) and ``w = M`` it is GPipe, with ``w = K - k`` it is 1F1B.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import NamedTuple

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.agenda import Agenda
from stalegrid.programs.grid import OBSERVER, Grid, Unit
from stalegrid.programs.lateral import Lateral, NoLateral
from stalegrid.programs.saving import Saves, resumed
from stalegrid.programs.schedules import Schedule
from stalegrid.programs.through import THROUGH
from stalegrid.programs.ties import GRADIENT, WEIGHTS, Ties
from stalegrid.programs.watch import Watch


class Back(NamedTuple):
    """How a group came back."""

    version: int
    """From which on it is there, with nothing in flight."""
    donor: int
    """The group whose state it then has."""


@dataclass(frozen=True)
class Program(Agenda):
    """The action sequences of every agent of a run.

    Args:
        grid: the units.
        schedule: how far stages run ahead.
        updates: N, updates that every unit makes.
        lateral: when groups exchange.
        watch: what the observer sees; None for no observer.
        recompute: whether stages that have several batches in flight make their graphs by a second forward.
        frozen: stages below the first that trains something: no gradient reaches them, and a gradient's message is
            an acknowledgement, so that they run as far ahead as others.
        targets_travel: whether the last stage is sent the targets of a batch by the first, which reads them with its
            inputs, and does not read them itself.
        ties: parameters that several stages use.
        saves: when it is saved, and from where it goes on.
        gone: groups that are not there since the save that it goes on from.
        back: groups that were not there before, and how they came back.
    """

    grid: Grid
    schedule: Schedule
    updates: int
    lateral: Lateral = field(default_factory=NoLateral)
    watch: Watch | None = None
    recompute: bool = False
    frozen: int = 0
    targets_travel: bool = False
    ties: Ties = field(default_factory=Ties)
    saves: Saves = field(default_factory=Saves)
    gone: frozenset[int] = frozenset()
    back: Mapping[int, Back] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.schedule.stages != self.grid.stages:
            raise ConfigError(
                f"the schedule has another number of stages than the grid "
                f"(schedule: {self.schedule.stages}, grid: {self.grid.stages})"
            )
        if self.updates < 1:
            raise ConfigError(f"a run needs at least one update (updates: {self.updates})")
        if self.updates <= self.schedule.begins:
            raise ConfigError(
                f"nothing is left to train (updates: {self.updates}, the run begins after: {self.schedule.begins}); "
                "ask for more updates or epochs"
            )

    @property
    def units(self) -> list[Unit]:
        """Those that train, in canonical order."""
        return [unit for unit in self.grid if unit.group not in self.gone]

    def actions(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions from the first to the last, or from the save on that it goes on from."""
        return self._since(agent, self._whole(agent))

    def schedule_of(self, group: int) -> Schedule:
        """Return how far the stages of a group run ahead: of one that came back, from there on."""
        return replace(self.schedule, begins=self.back[group].version) if group in self.back else self.schedule

    def begins_as(self, agent: Unit) -> Unit:
        """Return whose state an agent has where the run goes on: its own, but for one that comes back."""
        came = self.back.get(agent.group)
        return agent if came is None or came.version != self.saves.since else Unit(came.donor, agent.stage)

    def issued(self, unit: Unit, version: int) -> int:
        """Return how many batches a unit has forwarded when all that belongs to a version is done."""
        done = version * self.schedule.micro_batches
        if self.schedule.flush or version == self.schedule_of(unit.group).begins:
            return done
        return min(done - 1 + self.schedule.windows[unit.stage], self.updates * self.schedule.micro_batches)

    def flight(self, unit: Unit, batch: int) -> range:
        """Return the versions that a unit has when a batch is in flight there, once all that belongs to them is done.

        Before the update that ends round n-1, ``n M - 1 + w`` forwards are issued, and ``n M`` backwards are done.
        """
        return self._versions(unit, batch, batch // self.schedule.micro_batches)

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message is under way: sent before its sender is saved, taken after that."""
        windows, edge = self.schedule.windows, tag.edge
        if edge.name in ("activation", "target", WEIGHTS):
            last = (tag.index + 1 - windows[edge.target.stage]) // self.schedule.micro_batches
            return self._versions(edge.source, tag.index, last)
        # A gradient is taken in the update that it was sent in; all is measured of a version when it is saved.
        if edge.name in ("gradient", GRADIENT, *THROUGH) or OBSERVER in (edge.source, edge.target):
            return range(0)
        return self.lateral.crossing(tag)

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        watched = [] if self.watch is None else self.watch.inbound(self.units, agent)
        if agent == OBSERVER:
            return watched
        s, k = agent.group, agent.stage
        edges = [*self.lateral.edges(agent), *watched]
        if k > 0:
            edges.append(Edge("activation", Unit(s, k - 1), agent))
        if k < self.grid.stages - 1:
            edges.append(Edge("gradient", Unit(s, k + 1), agent))
        edges.extend(edge for edge in self._targets(s) if edge.target == agent)
        edges += self.ties.into(WEIGHTS, agent) + self.ties.into(GRADIENT, agent)
        # All processes number their channels by this order.
        return sorted(edges)

    def recomputes(self, stage: int) -> bool:
        """Return whether a stage forwards every batch a second time, while its gradient may still be under way.

        The second forward is an action of its own, not a branch of the backward: it needs no message, so it runs behind
        the wait for the gradient.  With one batch in flight it would make the graph that is there, bit for bit.
        """
        return self.recompute and stage >= self.frozen and self.schedule.in_flight(stage) > 1

    def carries_gradient(self, edge: Edge) -> bool:
        """Return whether a message to the stage below holds a gradient, and is not only an acknowledgement."""
        return edge.target.stage >= self.frozen

    def of_batches(self, update: int) -> Iterator[Tag]:
        """Yield the messages that units take for the batches of an update, whenever they were sent."""
        micro = self.schedule.micro_batches
        for unit in self.units:
            passes = self._passes(unit)
            for batch in range(update * micro, (update + 1) * micro):
                for one in passes:
                    yield from one.action(batch).needs

    def of_exchange(self, update: int) -> Iterator[Tag]:
        """Yield the messages of other groups that units take in an update."""
        for unit in self.units:
            for due in (self.lateral.opening, self.lateral.before_update, self.lateral.after_update):
                for action in due(unit, update):
                    yield from action.needs

    def _whole(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions, also those before the save that the run goes on from."""
        if agent != OBSERVER:
            return self._train(agent)
        assert self.watch is not None
        return self.watch.actions(self.units, self.updates, self.saved, self.schedule.begins)

    def _since(self, agent: Unit, actions: Iterator[Action]) -> Iterator[Action]:
        since, micro = self.saves.since, self.schedule.micro_batches
        if not since:
            return actions
        if self.begins_as(agent) != agent:
            return chain([Action(Kind.LOAD, since)], actions)
        flight = range(0) if agent == OBSERVER else range(since * micro, self.issued(agent, since))
        return resumed(actions, since, lambda tag: since in self.crossing(tag), flight)

    def _versions(self, unit: Unit, batch: int, last: int) -> range:
        """Return the versions up to one at which a unit has forwarded a batch."""
        if self.schedule.flush:
            return range(0)
        first = (batch + 1 - self.schedule.windows[unit.stage]) // self.schedule.micro_batches + 1
        return range(max(self.schedule_of(unit.group).begins + 1, first), last + 1)

    def _train(self, unit: Unit) -> Iterator[Action]:
        micro, window = self.schedule.micro_batches, self.schedule.windows[unit.stage]
        forward, backward = self._passes(unit)
        begins = self.schedule_of(unit.group).begins
        issued = begins * micro
        for n in range(begins, self.updates):
            yield from self.lateral.opening(unit, n)
            limit = (n + 1 if self.schedule.flush else self.updates) * micro
            for b in range(n * micro, (n + 1) * micro):
                # Before the first backward this fills the window; from then on each backward makes room for one
                # forward.
                while issued < min(b + window, limit):
                    if any(self.saved(version) for version in self.flight(unit, issued)):
                        yield Action(Kind.KEEP, issued)
                    yield forward.action(issued)
                    issued += 1
                if self.recomputes(unit.stage):
                    yield Action(Kind.RECOMPUTE, b)
                yield backward.action(b)
            yield from self.lateral.before_update(unit, n)
            yield Action(Kind.UPDATE, n)
            yield from self.lateral.after_update(unit, n)
            if self.watch is not None:
                yield from self.watch.seen(unit, self.units, n, self.updates)
            if self.saved(n + 1):
                yield Action(Kind.SAVE, n + 1)

    def _passes(self, unit: Unit) -> "tuple[_Pass, _Pass]":
        below, above = Unit(unit.group, unit.stage - 1), Unit(unit.group, unit.stage + 1)
        first, last, ties = unit.stage == 0, above.stage == self.grid.stages, self.ties
        targets = self._targets(unit.group)
        arrive = [] if first else [Edge("activation", below, unit), *(e for e in targets if e.target == unit)]
        # The activation leaves first: the next stage has to do with it before anybody needs the rest.
        leave = [] if last else [Edge("activation", unit, above), *(e for e in targets if e.source == unit)]
        forward = _Pass(
            Kind.FORWARD,
            [*arrive, *ties.into(WEIGHTS, unit)],
            [*leave, *ties.out_of(WEIGHTS, unit)],
            self._carries if ties.each else None,
        )
        backward = _Pass(
            Kind.BACKWARD,
            [*([] if last else [Edge("gradient", above, unit)]), *ties.into(GRADIENT, unit)],
            [*([] if first else [Edge("gradient", unit, below)]), *ties.out_of(GRADIENT, unit)],
        )
        return forward, backward

    def _carries(self, edge: Edge, batch: int) -> bool:
        """Return whether an edge has a message of a batch: weights only where they are new to its target."""
        if edge.name != WEIGHTS or self.ties.always:
            return True
        group, schedule = edge.source.group, self.schedule_of(edge.source.group)
        # What a group that comes back has of others' weights is what its donor had: as of some batch in flight.
        first = group in self.back and batch == schedule.begins * schedule.micro_batches
        return first or schedule.renews(edge.source.stage, batch)

    def _targets(self, group: int) -> tuple[Edge, ...]:
        """Return the edge on which the targets of a group travel, if they do.

        It cannot deadlock: what the last stage waits for left the first one together with the activation that it waits
        for too.
        """
        last = self.grid.stages - 1
        return (Edge("target", Unit(group, 0), Unit(group, last)),) if self.targets_travel and last else ()


@dataclass(frozen=True, slots=True)
class _Pass:
    """The forwards or the backwards of a unit, which differ in their batch only.

    Args:
        kind: which of the two.
        needs: edges that bring messages.
        sends: edges that take some.
        carries: (edge, batch) -> whether there is one; None where there is one for every batch.
    """

    kind: Kind
    needs: Sequence[Edge]
    sends: Sequence[Edge]
    carries: Callable[[Edge, int], bool] | None = None

    def action(self, batch: int) -> Action:
        needs, sends = self.needs, self.sends
        if self.carries is not None:
            needs = [edge for edge in needs if self.carries(edge, batch)]
            sends = [edge for edge in sends if self.carries(edge, batch)]
        # Of lists, which is faster than of generators: planning makes many actions.
        return Action(self.kind, batch, tuple([Tag(e, batch) for e in needs]), tuple([Tag(e, batch) for e in sends]))
