"""What a mixing answers: when groups exchange, what that does to a unit, and what travels.

Does not know: which mixings there are, other stages, engines.
"""

from collections.abc import Sequence
from dataclasses import Field, dataclass, fields, is_dataclass, replace
from typing import ClassVar, Protocol

from stalegrid.consensus.matrices import MixingMatrix, Widening
from stalegrid.consensus.momentum import Momentum
from stalegrid.consensus.weighing import weights_of
from stalegrid.programs import Action, Edge, Lateral, Layout, Message, NoLateral, Unit
from stalegrid.stages import StageLayout, Weights
from stalegrid.written import name_of


class Exchange(Protocol):
    """What lateral actions do to a unit's parameters or gradients."""

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute a share, a reduce or a mix."""


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
    """

    matrix: MixingMatrix
    period: int
    lag: int
    updates: int
    begins: int = 0
    gone: frozenset[int] = frozenset()
    late: tuple[tuple[int, int], ...] = ()

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
    def mixing(self) -> MixingMatrix | Widening:
        """Who mixes with whom, by turn.

        Raises:
            ConfigError: without those who are late the others cannot mix.
        """
        if not self.late:
            return self.matrix
        phases = []
        for begin in sorted({0, *(self._counts(version) for _, version in self.late)}):
            absent = {group for group, version in self.late if self._counts(version) > begin}
            phases.append((begin, self.matrix.without(absent | self.gone) if absent else self.matrix))
        return Widening(tuple(phases))

    def _counts(self, version: int) -> int:
        """Return the first turn for which neighbours have what a group sent that is there since a version."""
        return -(-(version + self.lag + 1) // self.period) - 1

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
    """

    name: ClassVar[str] = "none"
    averages_gradients: ClassVar[bool] = False
    averages_parameters: ClassVar[bool] = False

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

    def lateral(self, turns: Turns) -> Lateral:
        """Return when units exchange.

        Args:
            turns: of the run.

        Raises:
            ConfigError: the turns make no sense for this mixing.
        """
        return NoLateral()

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


def numbers_of(mixing: Mixing) -> dict[str, float]:
    """Return the numbers that a mixing has, by name."""
    return {f.name: getattr(mixing, f.name) for f in fields(mixing)} if is_dataclass(mixing) else {}
