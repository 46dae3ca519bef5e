"""Units of different groups that average in pairs, in an order that is known.

Does not know: who made the order, tensors, how a pair averages.

Whom a unit asks is drawn; when it is answered is what a network makes, and here data: meetings.  After update n, M(n)
takes the answer to what the unit asked last, if that has come, and answers those groups that have asked it; S(n) asks
the next one.  A unit asks nobody before it has been answered, so there is at most one question of each under way.

After its last update a unit waits for the answer that it lacks and goes on answering until nobody is left who may ask:
then it may meet others more than once.
"""

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from stalegrid.errors import ConfigError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import Unit

QUESTION = "question"
ANSWER = "answer"
"""The names of the two edges of a pair."""


class Question(NamedTuple):
    """What one group asks another, in some stage.

    Args:
        asker: group that asks.
        target: group that is asked.
        number: of the asker's questions in that stage, from 0.
    """

    asker: int
    target: int
    number: int

    def question(self, stage: int) -> Tag:
        """Return the message that asks."""
        return Tag(Edge(QUESTION, Unit(self.asker, stage), Unit(self.target, stage)), self.number)

    def answer(self, stage: int) -> Tag:
        """Return the message that answers."""
        return Tag(Edge(ANSWER, Unit(self.target, stage), Unit(self.asker, stage)), self.number)


@dataclass(frozen=True, slots=True)
class Meeting:
    """What a unit does with others after an update.

    Args:
        update: n.
        answered: its question that has been answered; None for none.
        takes: questions that it answers, ascending.
        asks: its next question; None for none.
    """

    update: int
    answered: Question | None = None
    takes: tuple[Question, ...] = ()
    asks: Question | None = None

    def actions(self, stage: int) -> Iterator[Action]:
        """Yield what a unit of a stage does."""
        answered = () if self.answered is None else (self.answered.answer(stage),)
        if needs := (*answered, *(q.question(stage) for q in self.takes)):
            yield Action(Kind.MIX, self.update, needs, tuple(q.answer(stage) for q in self.takes))
        if self.asks is not None:
            yield Action(Kind.SHARE, self.update, sends=(self.asks.question(stage),))


@dataclass(frozen=True)
class Askers:
    """Who may ask whom, and when.

    Args:
        neighbours: of each group.
        period: H; the rounds n with (n+1) % H == 0 may ask.
        updates: N.
        begins: version at which the run begins.
    """

    neighbours: tuple[tuple[int, ...], ...]
    period: int
    updates: int
    begins: int = 0

    def asked(self, unit: Unit, number: int) -> Question:
        """Return the question of a unit that has a number; whom it asks, subclasses say."""
        raise NotImplementedError

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the edges of all questions and answers that a unit may receive."""
        for r in self.neighbours[unit.group]:
            yield Edge(QUESTION, Unit(r, unit.stage), unit)
            yield Edge(ANSWER, Unit(r, unit.stage), unit)


@dataclass(frozen=True)
class InStep:
    """When units exchange that are all equally fast; see :class:`stalegrid.programs.lateral.Lateral`.

    Whoever asks after update n is answered after n+1 and takes that after n+2, where it asks again if it may.

    Args:
        askers: who may ask whom.
    """

    askers: Askers

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = opening

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield a meeting."""
        return self.meeting(unit, update).actions(unit.stage)

    def meeting(self, unit: Unit, update: int) -> Meeting:
        """Return what a unit does with others after an update."""
        others = (self._asked(Unit(r, unit.stage), update - 1) for r in self.askers.neighbours[unit.group])
        takes = tuple(q for q in others if q is not None and q.target == unit.group)
        return Meeting(update, self._asked(unit, update - 2), takes, self._asked(unit, update))

    def meetings(self, unit: Unit) -> Iterator[Meeting]:
        """Yield all meetings of a unit."""
        return (self.meeting(unit, n) for n in range(self.askers.begins, self.askers.updates))

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the edges of questions and answers."""
        return self.askers.edges(unit)

    def crossing(self, tag: Tag) -> range:
        """Return the version at which a message is under way: taken after the update that follows."""
        sent = self._first + tag.index * self.every + (tag.edge.name == ANSWER)
        return range(sent + 1, sent + 2)

    @property
    def _first(self) -> int:
        return self.askers.period - 1

    @property
    def every(self) -> int:
        """Updates from a question to the next: a multiple of the period in which an answer comes."""
        return self.askers.period * -(-2 // self.askers.period)

    def _asked(self, unit: Unit, update: int) -> Question | None:
        """Return what a unit asks after an update, if anything: nothing that would not be answered before the end."""
        number, rest = divmod(update - self._first, self.every)
        there = self.askers.begins <= update < self.askers.updates - 2
        return self.askers.asked(unit, number) if there and number >= 0 and rest == 0 else None


Order = Mapping[Unit, Sequence[Meeting]]
"""The meetings of every unit, as it had them."""


class Recorded:
    """When units exchange where it was noted; see :class:`stalegrid.programs.lateral.Lateral`.

    Args:
        askers: who may ask whom.
        order: the meetings.

    Raises:
        ConfigError: somebody takes what nobody has sent, or a message would never be taken.
    """

    def __init__(self, askers: Askers, order: Order) -> None:
        self._askers = askers
        self._order = order
        self._actions: dict[tuple[Unit, int], list[Action]] = defaultdict(list)
        for unit, met in order.items():
            for meeting in met:
                self._actions[unit, meeting.update] += meeting.actions(unit.stage)
        sent = {tag: n for (_, n), found in self._actions.items() for action in found for tag in action.sends}
        taken = {tag: n for (_, n), found in self._actions.items() for action in found for tag in action.needs}
        if odd := min(sent.keys() ^ taken.keys(), key=str, default=None):
            raise ConfigError(
                f"the record is not that of a whole run: a message is sent and not taken, or taken and not sent "
                f"(message: {odd})"
            )
        self._crossing = {tag: range(n + 1, taken[tag] + 1) for tag, n in sent.items()}

    def opening(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield nothing."""
        yield from ()

    before_update = opening

    def after_update(self, unit: Unit, update: int) -> Iterator[Action]:
        """Yield the meetings."""
        yield from self._actions.get((unit, update), ())

    def meetings(self, unit: Unit) -> Iterator[Meeting]:
        """Yield all meetings of a unit."""
        return iter(self._order[unit])

    def edges(self, unit: Unit) -> Iterator[Edge]:
        """Yield the edges of questions and answers."""
        return self._askers.edges(unit)

    def crossing(self, tag: Tag) -> range:
        """Return the versions at which a message is under way."""
        return self._crossing[tag]
