"""What is due: the sequence of actions of every agent, and the messages between them.

Does not know: tensors, time, ranks, what an action computes.

A grid of units is a Kahn process network: every agent runs one fixed sequence of actions, every message travels on
one first-in first-out edge, so what is computed depends on these sequences alone and never on timing.  Unit (s,k)
runs, with ``w`` batches in flight before the first backward::

    for n = 0, 1, ..., N-1:                       one round an update
        [S(n)]                                    share with other groups, where mixing wants it early
        for each of the M batches b of update n:
            F(...)  until min(b + w, limit) forwards are issued
            [G(b)]                                forward again, where the view makes graphs late
            B(b)
        [S(n) R(n) M(n)]  U(n)  [S(n) M(n)]       update; lateral actions around it
        [L(n)] [V(n+1)]                           report, snapshot

With ``w = m_k + 1`` and no flush this is fully decoupled backpropagation with staleness ``m_k``; with a flush (no
forward crosses an update) and ``w = M`` it is GPipe, with ``w = K - k`` it is 1F1B.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, NamedTuple, Protocol

from stalegrid.errors import ConfigError
from stalegrid.grid import OBSERVER, Grid, Unit


class Kind(Enum):
    """What an action does; the value is its letter in printed programs."""

    FORWARD = "F"
    RECOMPUTE = "G"
    BACKWARD = "B"
    UPDATE = "U"
    SHARE = "S"
    REDUCE = "R"
    MIX = "M"
    REPORT = "L"
    SNAPSHOT = "V"
    COLLECT = "C"
    EVALUATE = "E"
    TAKE = "T"
    ANSWER = "A"
    DROP = "D"
    STOP = "X"

    __hash__ = object.__hash__  # a kind is one object; hashing its name anew at every look-up would take longer


class Edge(NamedTuple):
    """A directed first-in first-out channel between two agents for one sort of message."""

    name: str
    source: Unit
    target: Unit

    def __str__(self) -> str:
        return f"{self.name} {self.source}->{self.target}"


@dataclass(frozen=True, slots=True)
class Tag:
    """Names one message: the ``index`` is its batch, update or version."""

    edge: Edge
    index: int

    def __str__(self) -> str:
        return f"{self.edge} #{self.index}"


@dataclass(frozen=True, slots=True)
class Action:
    """One step of an agent, the messages it needs and the messages it sends, in order."""

    kind: Kind
    index: int
    needs: tuple[Tag, ...] = ()
    sends: tuple[Tag, ...] = ()

    def __str__(self) -> str:
        return f"{self.kind.value}{self.index}"


Hoped = tuple[Tag, ...]
"""Messages any of which may settle what an agent does next."""


@dataclass(frozen=True, slots=True)
class Schedule:
    """How far each stage runs ahead of its own backwards.

    Args:
        windows: per stage, batches in flight before the first backward (at least 1).
        micro_batches: M, batches (micro-batches) an update averages over.
        flush: whether no forward may cross an update, which makes gradients exact.
        delay: for batches forwarded at a past version: how many versions before the one that their update changes;
            0 to forward at the newest.
    """

    windows: tuple[int, ...]
    micro_batches: int = 1
    flush: bool = False
    delay: int = 0

    @property
    def stages(self) -> int:
        """K."""
        return len(self.windows)

    def version_of(self, stage: int, batch: int) -> int:
        """Return the version at which a stage forwards a batch.

        Batch b is forwarded just before B(b - m), when ``max(0, b - m) // M`` updates were applied; with a flush, when
        all updates before its own were.
        """
        update = batch // self.micro_batches
        if self.flush:
            return update
        if self.delay:
            return max(0, update - self.delay)
        return max(0, batch - self.windows[stage] + 1) // self.micro_batches

    def bound(self, stage: int) -> int:
        """Return the staleness, in updates, that no update of the stage exceeds: ceil(m_k / M), or the delay."""
        if self.flush:
            return 0
        return self.delay or -(-(self.windows[stage] - 1) // self.micro_batches)

    def in_flight(self, stage: int) -> int:
        """Return how many batches are at most between the forward and the backward of a stage."""
        return self.windows[stage]

    def queued(self, stage: int) -> int:
        """Return how many activations at most wait for a stage, or are under way to it, once gradients flow.

        Stage k-1 forwards batch ``b + m_{k-1}`` only after it has used the gradient of batch ``b - 1``, for which
        stage k must have forwarded batch ``b - 1 + m_k``: so at most ``m_{k-1} - m_k + 1`` lie between.  This is the
        bounded queue with back-pressure of arXiv 1909.02625, where neither the activation that a stage is about to
        take nor the one that was just sent is counted.  Before the first gradient, and in every round of a flush, it
        is the whole window of stage k-1.
        """
        if not stage or self.flush:
            return self.windows[stage - 1] if stage else 0
        return self.windows[stage - 1] - self.windows[stage] + 1

    @property
    def all_busy(self) -> bool:
        """Whether all stages can compute at once in the steady state: m_k >= m_{k+1} + 1, and no flush."""
        pairs = zip(self.windows, self.windows[1:], strict=False)
        return not self.flush and all(a > b for a, b in pairs)


def stale(staleness: Sequence[int], micro_batches: int = 1) -> Schedule:
    """Build the schedule of fully decoupled backpropagation.

    Args:
        staleness: m_k per stage, in batches.
        micro_batches: M, batches an update averages over.

    Raises:
        ConfigError: negative or increasing along the stages; an increasing vector deadlocks.
    """
    shown = ",".join(map(str, staleness))
    for k, m in enumerate(staleness):
        if m < 0:
            raise ConfigError(f"staleness is negative (staleness: {shown}, stage: {k}); use 0 or more")
        if k and staleness[k - 1] < m:
            raise ConfigError(
                f"staleness increases along the stages (staleness: {shown}, stage {k - 1}: {staleness[k - 1]}, "
                f"stage {k}: {m}): stage {k - 1} would wait for a gradient of a batch it has not sent; "
                "give a list that never increases, such as 2(K-1-k)"
            )
    return Schedule(tuple(m + 1 for m in staleness), micro_batches)


def gpipe(stages: int, micro_batches: int) -> Schedule:
    """Build GPipe: all forwards of an update, then all backwards."""
    return Schedule((micro_batches,) * stages, micro_batches, flush=True)


def one_f_one_b(stages: int, micro_batches: int) -> Schedule:
    """Build 1F1B with a flush: at most K - k batches in flight at stage k."""
    return Schedule(tuple(min(micro_batches, stages - k) for k in range(stages)), micro_batches, flush=True)


class Lateral(Protocol):
    """When a unit exchanges with the same stage of other groups; see :mod:`stalegrid.consensus.rounds`."""

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due at the start of a round, before its forwards."""

    def before_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due between the last backward and the update."""

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what is due after the update."""

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield every edge on which the unit ever receives."""


class NoLateral:
    """Groups do not talk."""

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = after_update = opening

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield nothing."""
        yield from ()


@dataclass(frozen=True, slots=True)
class Watch:
    """What the observer sees.

    Args:
        report_every: updates between two reports of a unit.
        snapshot_every: updates between two snapshots of the parameters; the last version always has one.
        chunks: evaluation steps a snapshot takes, so that an engine can run others in between.
    """

    report_every: int = 1
    snapshot_every: int | None = None
    chunks: int = 0

    def reports(self, update: int, updates: int) -> bool:
        """Return whether units report after this update of so many."""
        return update + 1 == updates or (update + 1) % self.report_every == 0

    def snapshots(self, version: int, updates: int) -> bool:
        """Return whether units send their parameters at this version."""
        return version == updates or (self.snapshot_every is not None and version % self.snapshot_every == 0)

    def seen(self, unit: Unit, update: int, updates: int) -> Iterator[Action]:
        """Yield what a unit tells the observer after an update."""
        if self.reports(update, updates):
            yield Action(Kind.REPORT, update, sends=(Tag(Edge("report", unit, OBSERVER), update),))
        if self.snapshots(update + 1, updates):
            yield Action(Kind.SNAPSHOT, update + 1, sends=(Tag(Edge("snapshot", unit, OBSERVER), update + 1),))

    def actions(self, units: Sequence[Unit], updates: int) -> Iterator[Action]:
        """Yield the observer's actions."""
        for n in range(updates):
            if self.reports(n, updates):
                yield Action(Kind.REPORT, n, tuple(Tag(Edge("report", u, OBSERVER), n) for u in units))
            if self.snapshots(n + 1, updates):
                needs = tuple(Tag(Edge("snapshot", u, OBSERVER), n + 1) for u in units)
                yield Action(Kind.COLLECT, n + 1, needs)
                for chunk in range(self.chunks):
                    yield Action(Kind.EVALUATE, chunk)


def watched(units: Iterable[Unit]) -> list[Edge]:
    """Return every edge on which the observer receives from units, in canonical order."""
    return sorted(Edge(name, unit, OBSERVER) for unit in units for name in ("report", "snapshot"))


class Agenda:
    """What engines need of a program; by default of one that is known before the run.

    Attributes:
        watch: what the observer sees; None for no observer.
    """

    watch: Watch | None

    @property
    def units(self) -> list[Unit]:
        """Those that train, in canonical order."""
        raise NotImplementedError

    @property
    def agents(self) -> list[Unit]:
        """All agents in canonical order, the observer last."""
        return [*self.units, *([OBSERVER] if self.watch else [])]

    def actions(self, agent: Unit) -> Iterator[Action | Hoped]:
        """Yield the agent's actions from the first to the last; where the next depends on what arrives, what may."""
        raise NotImplementedError

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        raise NotImplementedError

    def due(self, edge: Edge) -> Iterator[Tag]:
        """Yield the messages of an edge, from first to last."""
        actions = (action for action in self.actions(edge.target) if isinstance(action, Action))
        return (tag for action in actions for tag in action.needs if tag.edge == edge)

    def heard(self, message: Any) -> None:
        """Take note of a message that has arrived; what is due does not depend on it."""

    def expendable(self, unit: Unit) -> bool:
        """Return whether the others can go on without an agent: they cannot."""
        return False

    def lost(self, unit: Unit) -> None:
        """Take note of an expendable agent that is gone."""

    def late(self) -> bool:
        """Take note that nothing came for as long as anything may take; return whether to go on all the same."""
        return False

    def endless(self, edge: Edge) -> bool:
        """Return whether nobody knows how many messages an edge carries, so that the last one says that it is."""
        return False

    def port(self, edge: Edge) -> object:
        """Return what edges share whose messages must leave one after another: nothing."""
        return edge


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
    """

    grid: Grid
    schedule: Schedule
    updates: int
    lateral: Lateral = field(default_factory=NoLateral)
    watch: Watch | None = None
    recompute: bool = False

    def __post_init__(self) -> None:
        if self.schedule.stages != self.grid.stages:
            raise ConfigError(
                f"the schedule has another number of stages than the grid "
                f"(schedule: {self.schedule.stages}, grid: {self.grid.stages})"
            )
        if self.updates < 1:
            raise ConfigError(f"a run needs at least one update (updates: {self.updates})")

    @property
    def units(self) -> list[Unit]:
        """Those that train, in canonical order."""
        return list(self.grid)

    def actions(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions from the first to the last."""
        if agent != OBSERVER:
            return self._train(agent)
        assert self.watch is not None
        return self.watch.actions(self.units, self.updates)

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        if agent == OBSERVER:
            return watched(self.units)
        s, k = agent.group, agent.stage
        edges = list(self.lateral.edges(agent))
        if k > 0:
            edges.append(Edge("activation", Unit(s, k - 1), agent))
        if k < self.grid.stages - 1:
            edges.append(Edge("gradient", Unit(s, k + 1), agent))
        return sorted(edges)

    def recomputes(self, stage: int) -> bool:
        """Return whether a stage forwards every batch a second time, while its gradient may still be under way."""
        return self.recompute and self.schedule.in_flight(stage) > 1

    def _train(self, unit: Unit) -> Iterator[Action]:
        micro, window = self.schedule.micro_batches, self.schedule.windows[unit.stage]
        forward, backward = self._passes(unit)
        issued = 0
        for n in range(self.updates):
            yield from self.lateral.opening(unit, n)
            limit = (n + 1 if self.schedule.flush else self.updates) * micro
            for b in range(n * micro, (n + 1) * micro):
                while issued < min(b + window, limit):
                    yield forward.action(issued)
                    issued += 1
                if self.recomputes(unit.stage):
                    yield Action(Kind.RECOMPUTE, b)
                yield backward.action(b)
            yield from self.lateral.before_update(unit, n)
            yield Action(Kind.UPDATE, n)
            yield from self.lateral.after_update(unit, n)
            if self.watch is not None:
                yield from self.watch.seen(unit, n, self.updates)

    def _passes(self, unit: Unit) -> "tuple[_Pass, _Pass]":
        below, above = Unit(unit.group, unit.stage - 1), Unit(unit.group, unit.stage + 1)
        first, last = unit.stage == 0, above.stage == self.grid.stages
        forward = _Pass(
            Kind.FORWARD,
            None if first else Edge("activation", below, unit),
            None if last else Edge("activation", unit, above),
        )
        backward = _Pass(
            Kind.BACKWARD,
            None if last else Edge("gradient", above, unit),
            None if first else Edge("gradient", unit, below),
        )
        return forward, backward


@dataclass(frozen=True, slots=True)
class _Pass:
    """The forwards or the backwards of a unit, which differ in their batch only."""

    kind: Kind
    needs: Edge | None
    sends: Edge | None

    def action(self, batch: int) -> Action:
        needs = () if self.needs is None else (Tag(self.needs, batch),)
        sends = () if self.sends is None else (Tag(self.sends, batch),)
        return Action(self.kind, batch, needs, sends)
