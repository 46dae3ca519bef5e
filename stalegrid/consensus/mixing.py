"""What a mixing answers: when groups exchange, what that does to a unit, and what travels.

Does not know: which mixings there are, other stages, engines.
"""

from collections.abc import Mapping, Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from stalegrid.consensus.directed import PushMatrix
from stalegrid.consensus.matrices import MixingMatrix, Shares, Topology, Widening, mixing_matrix
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.pairs import RandomPairs
from stalegrid.consensus.rounds import Averaging, early
from stalegrid.consensus.weighing import weights_of
from stalegrid.errors import ConfigError
from stalegrid.programs import Action, Askers, Edge, Lateral, Layout, Message, NoLateral, Order, Unit
from stalegrid.stages import StageLayout, Weights
from stalegrid.written import name_of


class Exchange(Protocol):
    """What lateral actions do to a unit's parameters or gradients."""

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute a share, a reduce or a mix."""


@runtime_checkable
class Hearing(Protocol):
    """An exchange that needs to know what of its own messages arrives, where they are coded."""

    def arrives(self, message: Message) -> None:
        """Take note of a message of one's own, as others will have it."""


@runtime_checkable
class Telling(Exchange, Protocol):
    """An exchange that measures something."""

    def told(self) -> Sequence[float]:
        """Return the numbers that its mixing names, of the time since they were told last; NaN for none."""


A = TypeVar("A", bound=Averaging)


@dataclass(frozen=True)
class Turns:
    """When groups mix, and who takes how much of whom.

    Args:
        matrix: over the groups, of which it knows the sizes of their batches.
        period: H, updates from one mixing to the next.
        lag: c, updates by which the neighbours' vectors are late.
        updates: N.
        begins: version at which the run begins.
        gone: groups that are not there.
        late: groups that came back, and since when: they have no weight until what they sent as late as all is there.
        fragments: K where stages take turns, 1 where all mix at once.
        lag_rule: what is made of what is late; see :mod:`stalegrid.consensus.lag_rules`.
        sparse: p, share of every tensor that travels in a turn.
        seed: of the run, for what is drawn.
        planned: updates that are planned, wherever the run ends.
        meetings: of a run that is repeated, by unit; None for none.
    """

    matrix: MixingMatrix | PushMatrix | RandomPairs
    period: int
    lag: int
    updates: int
    begins: int = 0
    gone: frozenset[int] = frozenset()
    late: tuple[tuple[int, int], ...] = ()
    fragments: int = 1
    lag_rule: str = "own-current"
    sparse: float = 1.0
    seed: int = 0
    planned: int = 0
    meetings: Order | None = None

    @property
    def first(self) -> int:
        """The first turn in which groups mix: none before has what neighbours sent as late as all is."""
        return self._counts(self.begins)

    @property
    def members(self) -> tuple[int, ...]:
        """The groups that are there, ascending."""
        return tuple(s for s in range(self.groups) if s not in self.gone)

    @property
    def weights(self) -> dict[int, float]:
        """What each group that is there weighs in their mean, ascending by group."""
        sizes = self.matrix.sizes
        return dict(zip(self.members, weights_of([sizes[s] for s in self.members]), strict=True))

    @property
    def mixing(self) -> Shares | Widening | RandomPairs:
        """Who mixes with whom, by turn.

        Raises:
            ConfigError: without those who are late the others cannot mix.
        """
        if not self.late:
            return self.matrix
        assert isinstance(self.matrix, MixingMatrix)  # others refuse to go on without some
        phases = []
        for begin in sorted({0, *(self._counts(version) for _, version in self.late)}):
            absent = {group for group, version in self.late if self._counts(version) > begin}
            phases.append((begin, self.matrix.without(absent | self.gone) if absent else self.matrix))
        return Widening(tuple(phases))

    def rounds(self, kind: type[A], *, adapt_first: bool) -> A:
        """Return the turns in which units average parameters.

        Args:
            kind: of rounds.
            adapt_first: whether what is averaged is what the optimizer's step made.

        Raises:
            ConfigError: the period or the lag is none, or a stage would have no turn.
        """
        found = kind(self.mixing, adapt_first, self.period, self.lag, self.updates, self.begins, self.fragments)
        for k in range(self.fragments):
            if all(found.turn(n, k) is None for n in range(self.begins, self.updates)):
                raise ConfigError(
                    f"the groups would never mix (period: {self.period}, lag: {self.lag}, updates: {self.updates}); "
                    "train longer, mix more often (mixing.period), or take mixing none"
                )
        return found

    def _counts(self, version: int) -> int:
        """Return the first turn for which neighbours have what a group sent that is there since a version."""
        # In every stage, also where some come to a turn sooner.
        sooner = max(early(k, self.fragments, self.period) for k in range(self.fragments))
        return -(-(version + self.lag + 1 + sooner) // self.period) - 1

    def only(self, gone: frozenset[int], late: tuple[tuple[int, int], ...] = ()) -> "Turns":
        """Return the same turns for the groups that are there.

        Args:
            gone: those who are not.
            late: those who came back, and since when.

        Raises:
            ConfigError: they cannot mix.
        """
        return replace(self, matrix=self.matrix.without(gone) if gone else self.matrix, gone=gone, late=late)

    @property
    def groups(self) -> int:
        """S."""
        return len(self.matrix.weights(0))


@dataclass(frozen=True)
class Vectors:
    """What a stage has that its units may send.

    Args:
        read: how the vector of parameters and running statistics reads.
        trainable: elements that the optimizer updates, without padding.
        momentum: whether momentum is mixed too.
        sums: whether gradients are sums, and travel with what they count.
    """

    read: StageLayout
    trainable: int
    momentum: bool
    sums: bool = False


class Mixing:
    """Groups exchange nothing; inherit and override.

    One that has numbers is a frozen dataclass of them, each with what it is if left out.

    Attributes:
        name: as users write it; the path of the class if left out.
        averages_gradients: whether every update takes the mean of all groups' gradients.
        averages_parameters: whether parameters are averaged with neighbours.
        topology: who mixes with whom, unless the user chooses.
        alone: whether it does something for a single group too.
        keeps: vectors as long as a stage's trained parameters that a unit keeps from one turn to the next.
        tells: names of the numbers that an exchange measures, see :class:`Telling`.
        timed: whether timing decides who exchanges with whom; see :meth:`askers`.
        refuses: what it cannot be combined with, and why, as a sentence goes on after its name: ``period``, ``lag``,
            ``momentum`` (mixed too), ``turns`` (a topology that is another one in each), ``fragments``, ``random
            pairs``, ``lost groups``, ``sums`` (a loss that is a sum and a count), ``sparse gradients``.
        coded: which setting of ``codec`` is for the messages of an edge, by the edge's name.
        echoed: names of edges where a sender needs to know what arrives; its exchange is :class:`Hearing`.
        sends_differences: whether parameters travel as what they have changed by since they did before.
    """

    name: ClassVar[str] = "none"
    averages_gradients: ClassVar[bool] = False
    averages_parameters: ClassVar[bool] = False
    topology: ClassVar[str] = "ring"
    alone: ClassVar[bool] = False
    keeps: ClassVar[int] = 0
    tells: ClassVar[tuple[str, ...]] = ()
    timed: ClassVar[bool] = False
    refuses: ClassVar[Mapping[str, str]] = {}
    coded: ClassVar[Mapping[str, str]] = {}
    echoed: ClassVar[frozenset[str]] = frozenset()
    sends_differences: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        # A class that inherits from one that has a name would be taken for it.
        if "name" not in vars(cls):
            cls.name = name_of(cls)

    @property
    def text(self) -> str:
        """The name, and those numbers that are not what they are if left out, as users write them."""
        own: tuple[Field[float], ...] = fields(self) if is_dataclass(self) else ()
        numbers = [f"{f.name}={getattr(self, f.name)!r}" for f in own if getattr(self, f.name) != f.default]
        return ",".join([self.name, *numbers])

    def refuse(self, what: str, shown: object) -> None:
        """Refuse to be combined with something, if it cannot be.

        Args:
            what: of :attr:`refuses`.
            shown: the option and its value, for the error.

        Raises:
            ConfigError: it cannot be.
        """
        if what in self.refuses:
            raise ConfigError(f"{self.name} {self.refuses[what]} ({shown})")

    def matrix(self, topology: Topology, groups: int, sizes: Sequence[int] = ()) -> MixingMatrix | PushMatrix:
        """Return who takes how much of whom.

        Args:
            topology: as it was asked for.
            groups: S.
            sizes: samples of each group's batch; alike if left out.

        Raises:
            ConfigError: it makes no sense for this mixing.
        """
        return mixing_matrix(topology, groups, sizes)

    def lateral(self, turns: Turns) -> Lateral:
        """Return when units exchange.

        Args:
            turns: of the run.

        Raises:
            ConfigError: the turns make no sense for this mixing.
        """
        return NoLateral()

    def cycle(self, turns: Turns) -> int:
        """Return after how many updates groups send each other as many messages once more.

        Args:
            turns: of the run.
        """
        return turns.period * len(turns.matrix.matrices)

    def askers(self, turns: Turns) -> Askers:
        """Return who may ask whom for an exchange, where timing decides when that is answered.

        Args:
            turns: of the run.
        """
        raise NotImplementedError(f"{self.name} exchanges in turns")

    def exchange(self, turns: Turns, unit: Unit, weights: Weights, momentum: Momentum | None) -> Exchange | None:
        """Return what the exchange does to a unit; None for nothing.

        Args:
            turns: of the run.
            unit: whose.
            weights: of the unit.
            momentum: of its optimizer, where that is mixed too.
        """
        return None

    def layout(self, edge: Edge, turns: Turns, vectors: Vectors) -> Layout:
        """Return what every message of an edge between groups consists of.

        Args:
            edge: between two units of a stage.
            turns: of the run.
            vectors: of that stage.
        """
        raise NotImplementedError(f"{self.name} sends on {edge}, and must say what")

    def lossy(self, edge: Edge, turns: Turns, vectors: Vectors) -> int:
        """Return how many elements, from the first of a message on, may lose something on the way; none if left out.

        Args:
            edge: between two units of a stage.
            turns: of the run.
            vectors: of that stage.
        """
        return 0

    def remembered(self, turns: Turns, vectors: Vectors) -> int:
        """Return the bytes that a unit keeps from one turn to the next, at most.

        Args:
            turns: of the run.
            vectors: of its stage.
        """
        return self.keeps * vectors.read.trained * vectors.read.dtype.itemsize


def numbers_of(mixing: Mixing) -> dict[str, float]:
    """Return the numbers that a mixing has, by name."""
    return {f.name: getattr(mixing, f.name) for f in fields(mixing)} if is_dataclass(mixing) else {}
