"""Units of different groups that average in pairs, whenever the other one answers.

Does not know: tensors, channels, what an action computes.

Nobody waits for an answer before the end.  A unit looks after each update who has asked it and whether it has been
answered; what it finds is a :class:`~stalegrid.programs.meetings.Meeting`.  Nobody knows beforehand how many messages
an edge carries, so the last question says that it is the last.
"""

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass, fields
from typing import Any

from stalegrid.programs.actions import Action, Edge, Hoped, Kind, Tag
from stalegrid.programs.grid import Unit
from stalegrid.programs.meetings import ANSWER, QUESTION, Askers, Meeting, Question
from stalegrid.programs.messages import END
from stalegrid.programs.pipeline import Program


class Encounters:
    """What this process has heard, and whom its units meet therefore; see :class:`stalegrid.programs.lateral.Lateral`.

    Args:
        askers: who may ask whom.
    """

    def __init__(self, askers: Askers) -> None:
        self.askers = askers
        self._asked: dict[Unit, Question] = {}  # that has not been answered
        self._count: Counter[Unit] = Counter()  # of questions
        self._here: dict[Edge, int] = {}  # numbers of messages that are to be taken
        self._over: set[Edge] = set()  # those of questions on which no more come

    def __reduce__(self) -> tuple[type["Encounters"], tuple[Askers]]:
        return Encounters, (self.askers,)  # another process has heard nothing yet

    def heard(self, edge: Edge, index: int) -> None:
        """Take note of a message that has arrived."""
        if edge.name in (QUESTION, ANSWER) and index == END:
            self._over.add(edge)
        elif edge.name in (QUESTION, ANSWER):
            self._here[edge] = index

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = opening

    def after_update(self, unit: Unit, update: int) -> Iterator[Any]:
        """Yield what is due by what is here at this moment; in the end also messages that may settle more."""
        yield from self._now(unit, update)
        if update + 1 == self.askers.updates:
            yield from self._to_the_end(unit, update)

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the edges of questions and answers."""
        return self.askers.edges(unit)

    def crossing(self, tag: Tag) -> range:
        """Return none: nobody knows, and no such run is saved."""
        return range(0)

    def _now(self, unit: Unit, update: int) -> Iterator[Action]:
        return self._meet(unit, update).actions(unit.stage)

    def _to_the_end(self, unit: Unit, update: int) -> Iterator[Action | Hoped]:
        """Yield what a unit does until it has been answered, and nobody is left who may ask it."""
        told = False
        while not told or self._open(unit):
            if not told and unit not in self._asked:
                told = True
                yield Action(Kind.STOP, update, sends=tuple(Tag(edge, END) for edge in self._to(unit)))
            found = list(self._now(unit, update))
            yield from found
            if not found and (awaited := self._awaited(unit)):
                yield tuple(Tag(edge, update) for edge in awaited)

    def _meet(self, unit: Unit, update: int) -> Meeting:
        answered = asks = None
        if unit in self._asked and self._take(self._asked[unit].answer(unit.stage).edge) is not None:
            answered = self._asked.pop(unit)
        came = ((edge.source.group, self._take(edge)) for edge in self._from(unit))
        takes = tuple(Question(r, unit.group, number) for r, number in came if number is not None)
        if unit not in self._asked and self._asks(unit, update):
            asks = self._asked[unit] = self.askers.asked(unit, self._count[unit])
            self._count[unit] += 1
        return Meeting(update, answered, takes, asks)

    def _asks(self, unit: Unit, update: int) -> bool:
        """Return whether a unit that waits for no answer asks somebody; after its last update it does not."""
        askers = self.askers
        return bool(askers.neighbours[unit.group]) and (update + 1) % askers.period == 0 and update + 1 < askers.updates

    def _take(self, edge: Edge) -> int | None:
        return self._here.pop(edge, None)

    def _awaited(self, unit: Unit) -> list[Edge]:
        asked = [self._asked[unit].answer(unit.stage).edge] if unit in self._asked else []
        return [*asked, *self._open(unit)]

    def _open(self, unit: Unit) -> list[Edge]:
        """Return the edges on which a unit may be asked, or has been and has not answered."""
        return [edge for edge in self._from(unit) if edge in self._here or edge not in self._over]

    def _from(self, unit: Unit) -> list[Edge]:
        return [Edge(QUESTION, Unit(r, unit.stage), unit) for r in self.askers.neighbours[unit.group]]

    def _to(self, unit: Unit) -> list[Edge]:
        return [Edge(QUESTION, unit, Unit(r, unit.stage)) for r in self.askers.neighbours[unit.group]]


@dataclass(frozen=True)
class Encountering(Program):
    """The action sequences of a run whose groups meet whenever they do."""

    @classmethod
    def of(cls, program: Program, askers: Askers) -> "Encountering":
        """Return the program of a run in which timing decides who meets whom.

        Args:
            program: of the same run, with an order that is known.
            askers: who may ask whom.
        """
        given = {field.name: getattr(program, field.name) for field in fields(program)}
        return cls(**{**given, "lateral": Encounters(askers)})

    @property
    def encounters(self) -> Encounters:
        """Whom its units meet."""
        assert isinstance(self.lateral, Encounters)
        return self.lateral

    def heard(self, message: Any) -> None:
        """Take note of a message that has arrived: who meets whom depends on it."""
        self.encounters.heard(message.tag.edge, message.tag.index)

    def of_exchange(self, update: int) -> Iterator[Tag]:
        """Yield nothing: who takes what in an update nobody knows but who does."""
        yield from ()

    def silence(self, agents: Collection[Unit]) -> int:
        """Return for how many steps of others agents may hear nothing: who is done may hear questions alone."""
        askers = self.encounters.askers
        # A neighbour asks everybody once before it asks anybody again, each after a period and an answer.
        return super().silence(agents) + 2 * max(map(len, askers.neighbours)) * (askers.period + 1)
