"""Servers and learners whose order of deliveries is known, and that may be asked to be saved, or to leave.

Does not know: tensors, where the order comes from.

Where such a run ends nobody knows beforehand, so it ends as one does whose order the network makes: by last messages.
"""

from collections import Counter, deque
from collections.abc import Iterator
from dataclasses import dataclass

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Hoped, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.live import Live
from stalegrid.programs.messages import END
from stalegrid.programs.serving import Ordered
from stalegrid.programs.softsync import Delivery


@dataclass
class Led(Live):
    """Servers and learners whose order is known, of all deliveries of the run, and none of which is lost."""

    @classmethod
    def of(cls, program: Ordered) -> "Led":
        """Return the program of a run that may be asked.

        Raises:
            ConfigError: learners are lost in it.
        """
        if any(delivery.gone for delivery in program.order):
            raise ConfigError("a run that repeats how learners were lost cannot be asked to be saved, or to leave")
        given = (program.rules, program.servers, program.updates, program.watch, program.order)
        return cls(*given, saves=program.saves, asks=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        # What the record of a longer run says of later updates is nobody's batch here.
        self._batches = Counter(d.learner for d in self.order[: self.updates * self.rules.gather])
        self._coming = {shard: deque(maxlen=0) for shard in self.shards}  # in which order they come is no matter

    @property
    def settled(self) -> bool:
        """Whether all learners are known to have saved the version that was asked for last."""
        return True

    def expendable(self, unit: Unit) -> bool:
        """Return whether the others can go on without an agent: the order says who comes."""
        return False

    def deliveries(self, unit: Unit) -> Iterator[Delivery]:
        """Yield the order."""
        return iter(self.order)

    def learn(self, unit: Unit) -> Iterator[Action | Hoped]:
        """Yield the actions of a learner: for each of its gradients in the order."""
        batches = self._batches[unit.group]
        yield from self.load(unit, batches)
        known = yield from self._compute(unit, range(self.cut.given(unit.group), batches))
        if known is None:
            return
        # Nothing changes here any more, so what is planned is saved now; what is asked for, when it is known, which may
        # be while this is saved: both are settled before.
        done = set(self._asked)
        yield from list(self.kept(known, self.updates))
        while left := self._open(unit):
            yield tuple(Tag(edge, END) for edge in left)
            yield from self._unplanned(done, self.updates)
        yield self._stop(unit, batches)
