"""What all groups have shared at one version, one's own included, until it is mixed.

Does not know: what is made of it, how messages travel.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from stalegrid.consensus.rounds import Together
from stalegrid.errors import StalenessExceeded
from stalegrid.objects import State
from stalegrid.programs import Action, Message, Unit


@dataclass(frozen=True)
class Met:
    """What meets in a turn.

    Args:
        own: the unit's group.
        vectors: of those whom the unit takes from, and its own, by group.
        shares: what the unit takes of them, as the mixing matrix has it.
    """

    own: int
    vectors: dict[int, Tensor]
    shares: dict[int, float]


class Snapshots:
    """Sends what a unit has, and holds it against what comes.

    Args:
        rounds: who mixes with whom, when.
        unit: whose.
    """

    def __init__(self, rounds: Together, unit: Unit) -> None:
        self._rounds = rounds
        self._unit = unit
        self._under_way: dict[int, tuple[int, Tensor]] = {}  # version and vector, by the round in which it was shared

    def share(self, action: Action, version: int, vector: Tensor) -> list[Message]:
        """Return the messages that have a vector, which is kept and may not be changed."""
        self._under_way[action.index] = version, vector
        return [Message(tag, version, (vector,)) for tag in action.sends]

    def meet(self, action: Action, inbox: Sequence[Message]) -> Met:
        """Return what a unit mixes.

        Raises:
            StalenessExceeded: somebody's is of another version.
        """
        version, own = self._under_way.pop(action.index - self._rounds.lag)
        check_versions(inbox, version)
        vectors = {self._unit.group: own, **{m.tag.edge.source.group: m.tensors[0] for m in inbox}}
        turn = self._rounds.turn(action.index, self._unit.stage)
        assert turn is not None
        row = self._rounds.mixing.weights(turn)[self._unit.group]
        return Met(self._unit.group, vectors, {group: float(row[group]) for group in vectors})

    def state_dict(self) -> State:
        """Return what is under way."""
        return {"under_way": self._under_way}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`."""
        self._under_way = state["under_way"]


def check_versions(inbox: Sequence[Message], version: int) -> None:
    """Check that what others have sent is of the same version as one's own.

    Raises:
        StalenessExceeded: something is not.
    """
    for message in inbox:
        if message.version != version:
            raise StalenessExceeded(
                f"{message.tag} carries parameters of version {message.version}; one's own are of version {version}"
            )
