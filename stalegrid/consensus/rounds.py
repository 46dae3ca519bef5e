"""When units exchange with the same stage of other groups.

Does not know: tensors, what is exchanged or how it is averaged, time.

Round n is the n-th update with the forwards and backwards before it.  The actions are S (share), R (reduce) and
M (mix); :mod:`stalegrid.consensus.averaging`, :mod:`stalegrid.consensus.allreduce` and those beside them say what
these do to tensors.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from stalegrid.consensus.matrices import Shares, Widening
from stalegrid.consensus.pairs import RandomPairs
from stalegrid.errors import ConfigError
from stalegrid.programs import Action, Edge, Kind, Tag, Unit

PARAMETERS = "parameters"
PART = "gradient-part"
MEAN = "gradient-mean"
TRACKED = "tracked"
PARAMETERS_PART = "parameters-part"
PARAMETERS_MEAN = "parameters-mean"


@dataclass(frozen=True)
class Averaging:
    """Average parameters with neighbours every ``period`` updates (Pham and Ahn, arXiv 2509.05679).

    Args:
        mixing: who mixes with whom, by mixing turn.
        adapt_first: False: ``w_s(n+1) = sum_r P_sr w_r(n) + u_s(n)``, shared at the start of the round so that
            messages travel behind the computation; True: ``w_s(n+1) = sum_r P_sr (w_r(n) + u_r(n))``.
        period: H, updates from one mixing to the next; the rounds n with (n+1) % H == 0 mix.
        lag: c, mix with neighbours' parameters of round ``n - c``; the first c rounds have none and do not mix.
        updates: N, so that nothing is shared that nobody will mix.
        begins: version at which the run begins, before which nobody has shared anything.
        fragments: K where stages take turns, stage k ``floor(k H / K)`` updates after the first one; 1 where all mix
            at once.

    Raises:
        ConfigError: the period is below 1 or the lag below 0.
    """

    mixing: Shares | Widening | RandomPairs
    adapt_first: bool
    period: int
    lag: int
    updates: int
    begins: int = 0
    fragments: int = 1

    def __post_init__(self) -> None:
        if self.period < 1:
            raise ConfigError(f"the mixing period counts updates from 1 (period: {self.period})")
        if self.lag < 0:
            raise ConfigError(f"the mixing lag counts updates from 0 (lag: {self.lag})")

    def turn(self, update: int, stage: int = 0) -> int | None:
        """Return the mixing turn of a stage in a round, or None where it does not mix."""
        count = update + 1 + early(stage, self.fragments, self.period)
        due = count % self.period == 0 and self.begins + self.lag <= update < self.updates
        return count // self.period - 1 if due else None

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the share of combine-while-adapt."""
        if not self.adapt_first:
            yield from self._share(unit, update)

    def before_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the share of adapt-then-combine and the mix of both."""
        if self.adapt_first:
            yield from self._share(unit, update)
        turn = self.turn(update, unit.stage)
        if turn is not None:
            sources = self.mixing.sources(unit.group, turn)
            needs = (self._tag(Unit(r, unit.stage), unit, update - self.lag) for r in sources)
            yield Action(Kind.MIX, update, tuple(needs))

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield an edge from every group that the unit ever mixes with."""
        for r in self.mixing.neighbours(unit.group):
            yield Edge(PARAMETERS, Unit(r, unit.stage), unit)

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message is under way: those of its lag."""
        return range(tag.index + 1, tag.index + self.lag + 1)

    def _share(self, unit: Unit, update: int) -> Iterator[Action]:
        turn = self.turn(update + self.lag, unit.stage)
        targets = () if turn is None else self.mixing.targets(unit.group, turn)
        # A round that mixes also needs the unit's own vector as it was here, even if nobody else does.
        if targets or self.turn(update, unit.stage) is not None:
            sends = (self._tag(unit, Unit(r, unit.stage), update) for r in targets)
            yield Action(Kind.SHARE, update, sends=tuple(sends))

    @staticmethod
    def _tag(source: Unit, target: Unit, update: int) -> Tag:
        return Tag(Edge(PARAMETERS, source, target), update)


def early(stage: int, fragments: int, period: int) -> int:
    """Return by how many updates a stage mixes before a round that ends a period.

    Args:
        stage: k.
        fragments: K where stages take turns, 1 where all mix at once.
        period: H.
    """
    return -(stage % fragments * period // fragments) % period


@dataclass(frozen=True)
class Together(Averaging):
    """Average what all have shared at one version, one's own vector included, which a group alone has too.

    Raises:
        ConfigError: also where a unit would share again before it has mixed.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.lag >= self.period:
            raise ConfigError(
                f"what groups have shared comes before they share again (period: {self.period}, lag: {self.lag}); take "
                "a longer period, or a shorter lag"
            )

    def _share(self, unit: Unit, update: int) -> Iterator[Action]:
        turn = self.turn(update + self.lag, unit.stage)
        if turn is not None:
            sends = (self._tag(unit, Unit(r, unit.stage), update) for r in self.mixing.targets(unit.group, turn))
            yield Action(Kind.SHARE, update, sends=tuple(sends))


@dataclass(frozen=True)
class Reduced(Together):
    """The same in two steps, where all take the same mean at once: as :class:`AllReduce` does it, with parameters.

    Each unit then sends and receives 2 (S-1)/S of its vector, and not S-1 of it.
    """

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield share, reduce and mix, of rounds that mix."""
        turn = self.turn(update, unit.stage)
        if turn is not None:
            others = [Unit(r, unit.stage) for r in self.mixing.sources(unit.group, turn)]
            yield from _in_two_steps(PARAMETERS_PART, PARAMETERS_MEAN, unit, others, update)

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the two edges from every other group."""
        for r in self.mixing.neighbours(unit.group):
            yield Edge(PARAMETERS_PART, Unit(r, unit.stage), unit)
            yield Edge(PARAMETERS_MEAN, Unit(r, unit.stage), unit)


def _in_two_steps(part: str, mean: str, unit: Unit, others: Sequence[Unit], update: int) -> Iterator[Action]:
    """Yield what sends parts to their owners, means of one's own part to all, and takes theirs."""
    yield Action(Kind.SHARE, update, sends=tuple(Tag(Edge(part, unit, other), update) for other in others))
    yield Action(
        Kind.REDUCE,
        update,
        tuple(Tag(Edge(part, other, unit), update) for other in others),
        tuple(Tag(Edge(mean, unit, other), update) for other in others),
    )
    yield Action(Kind.MIX, update, tuple(Tag(Edge(mean, other, unit), update) for other in others))


@dataclass(frozen=True)
class AllReduce:
    """Average the gradients of all groups before every update: data parallelism.

    Group r owns the r-th part of the gradient: everybody sends it that part (S), it averages them (R) and sends the
    mean back to everybody, who assembles it (M).  Each unit sends and receives 2 (S-1)/S of its gradient, as in a
    ring, in two steps, and sums in the order of the groups, so the bits do not depend on timing, which a library's
    all-reduce does not promise.

    Args:
        groups: S.
        gone: those of them that are there no more.
    """

    groups: int
    gone: frozenset[int] = frozenset()

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    after_update = opening

    def before_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield share, reduce and mix."""
        yield from _in_two_steps(PART, MEAN, unit, self._peers(unit), update)

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the two edges from every other group."""
        for peer in self._peers(unit):
            yield Edge(PART, peer, unit)
            yield Edge(MEAN, peer, unit)

    def crossing(self, tag: Tag) -> range:
        """Return none: what is sent in a round is taken in it."""
        return range(0)

    def _peers(self, unit: Unit) -> list[Unit]:
        return [Unit(r, unit.stage) for r in range(self.groups) if r != unit.group and r not in self.gone]


@dataclass(frozen=True)
class Pushing:
    """Push after every update, and mix what came in those rounds that mix.

    Args:
        rounds: when groups mix, with what an update made.
    """

    rounds: Averaging

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = opening

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the share, which also a round that does not mix has, and the mix."""
        if self.rounds.turn(update) is None:
            yield Action(Kind.SHARE, update)
        yield from self.rounds.after_update(unit, update)

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield an edge from every group that ever sends to the unit."""
        return self.rounds.edges(unit)

    def crossing(self, tag: Tag) -> range:
        """Return none: what is sent in a round is taken in it."""
        return range(0)


@dataclass(frozen=True)
class Tracking:
    """Share at the start of a round, mix what tracks the gradient before the update, and parameters after it.

    Args:
        rounds: when groups mix.
    """

    rounds: Averaging

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the share, of rounds that mix."""
        turn = self.rounds.turn(update)
        if turn is not None:
            targets = (Unit(r, unit.stage) for r in self.rounds.mixing.targets(unit.group, turn))
            yield Action(Kind.SHARE, update, sends=tuple(Tag(Edge(TRACKED, unit, other), update) for other in targets))

    def before_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield what takes the messages, if there are any, and makes the direction of the step."""
        turn = self.rounds.turn(update)
        sources = () if turn is None else self.rounds.mixing.sources(unit.group, turn)
        others = (Unit(r, unit.stage) for r in sources)
        yield Action(Kind.REDUCE, update, tuple(Tag(Edge(TRACKED, other, unit), update) for other in others))

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the mix of parameters, of rounds that mix; what it needs was there before the update."""
        if self.rounds.turn(update) is not None:
            yield Action(Kind.MIX, update)

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield an edge from every group that the unit ever mixes with."""
        for r in self.rounds.mixing.neighbours(unit.group):
            yield Edge(TRACKED, Unit(r, unit.stage), unit)

    def crossing(self, tag: Tag) -> range:
        """Return none: what is sent in a round is taken in it."""
        return range(0)
