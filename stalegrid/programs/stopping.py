"""A run that may end early, or be asked to be saved or to leave: when its agents hear of it, and what then comes.

Does not know: who asks and why, what agents do.

Units run ahead of each other and of the observer and wait for nobody, so what was to come at once would come at another
version in each.  Somebody therefore judges versions, J(V), and says at V what is to come a lead later; H(V), an action
of each agent, needs that verdict.  H(V) lies behind all that a run that ends at V + lead has in common with a longer
one and before all in which they differ.  So no timing changes a number, and a unit waits for a verdict only if who
judges is that far behind.

*The observer* judges what it has measured, since callbacks may ask for the end: what a stopped run computes is what a
run that was to end there computes.

*The last stage of a group*, which is the first of its group to have a version, says whether all are saved at V + lead,
and leave then.  It is asked often, whatever is reported: each verdict says how many updates later the next one comes,
which depends on how long updates take here, and on which nothing does that is computed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import dropwhile, islice
from typing import Any

from stalegrid.errors import ProtocolError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.lateral import Lateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.saving import LEAVE, SAVE
from stalegrid.programs.watch import Watch

VERDICT = "verdict"
"""The name of the edges from the observer."""

ASKED = "asked"
"""The name of the edges from the unit that says what is asked of the run."""

END_RUN = 1
"""What a verdict of the observer may say: that the run ends."""

Said = Sequence[int]
"""What a verdict says: a code, and of what is asked also how many updates later the next verdict comes."""


class Verdicts:
    """What a process has heard."""

    def __init__(self) -> None:
        self._heard: dict[tuple[str, int], Said] = {}

    def __reduce__(self) -> tuple[type["Verdicts"], tuple[()]]:
        return Verdicts, ()  # another process has heard nothing yet

    def hear(self, name: str, version: int, said: Said) -> None:
        """Note a verdict, which comes once for every agent that lives here."""
        self._heard[name, version] = said

    def known(self, name: str, version: int) -> Said:
        """Return what the verdict of a version, which is here, says."""
        return self._heard[name, version]

    def said(self, name: str, version: int) -> int:
        """Return its code, or that it says nothing where there is none."""
        return self._heard.get((name, version), (0,))[0]

    def those(self, name: str, code: int) -> list[int]:
        """Return the versions whose verdicts say something, in order."""
        return sorted(v for (other, v), said in self._heard.items() if other == name and said[0] & code)


@dataclass(frozen=True, kw_only=True)
class Stoppable(Program):
    """The action sequences of a run that may end early, or be asked to be saved or to leave.

    Args:
        ahead: rounds by which an action may depend on how long the run is, or on whether it is saved.
        laterals: updates of a run -> when its groups exchange.
        verdicts: that this process has heard.
        ends: whether the observer may end it.
        asks: whether it may be asked to be saved, or to leave.
        apart: updates that groups may well be apart, and then do not wait for what is asked.
    """

    ahead: int
    laterals: Callable[[int], Lateral]
    verdicts: Verdicts
    ends: bool = True
    asks: bool = False
    apart: int = 0

    @classmethod
    def of(
        cls,
        program: Program,
        ahead: int,
        laterals: Callable[[int], Lateral],
        *,
        ends: bool = True,
        asks: bool = False,
        apart: int = 0,
    ) -> "Stoppable":
        """Return a program that may be stopped.

        Raises:
            ConfigError: there is none of so few updates as the first verdict could leave.
        """
        given = {field.name: getattr(program, field.name) for field in fields(program)}
        made = cls(**given, ahead=ahead, laterals=laterals, verdicts=Verdicts(), ends=ends, asks=asks, apart=apart)
        first = (made.schedule.begins // made.every + 1) * made.every
        if made.judged(first, made.updates):
            made.until(first + made.lead)
        return made

    @property
    def askable(self) -> bool:
        """Whether somebody may ask the run to be saved, or to leave, at a version that was not planned."""
        return self.asks

    @property
    def every(self) -> int:
        """Updates between verdicts of the observer: those of evaluations, or of reports if all is evaluated at last."""
        return self._watched.snapshot_every or self._watched.report_every

    @property
    def lead(self) -> int:
        """Updates from the version that a verdict of the observer is of to the end."""
        # One more than agents must know before: they send the snapshot that is judged in between.
        return -(-(self.ahead + 1) // self.every) * self.every

    @property
    def asker(self) -> Unit:
        """The unit that says what is asked of the run."""
        # One that comes back has not sent before what others then wait for.
        lasts = (unit for unit in self.units if unit.stage == self.grid.stages - 1)
        return next(unit for unit in lasts if self.begins_as(unit) == unit)

    @property
    def delay(self) -> int:
        """Updates after which agents hear what is asked: nobody waits for it who is no further ahead of who says it."""
        return self.apart + 1

    @property
    def notice(self) -> int:
        """Updates from the version at which something is asked to the one that is saved."""
        return self.ahead + self.delay

    @property
    def left(self) -> int | None:
        """The version at which the run has left, if a verdict that was heard said so."""
        found = (v + self.notice for v in self.verdicts.those(ASKED, LEAVE))
        # Whoever hears of the end before it leaves goes to the end.
        ends = [v + self.lead - self.ahead for v in self.verdicts.those(VERDICT, END_RUN)]
        return min((n for n in found if all(n < end for end in ends)), default=None)

    def judged(self, version: int, updates: int) -> bool:
        """Return whether the observer judges a version of a run of so many updates, which must be able to end it."""
        some = self.ends and version > self.schedule.begins and version % self.every == 0
        return some and version + self.lead < updates

    def until(self, updates: int) -> Program:
        """Return the program of a run that was to make so many updates."""
        given = {field.name: getattr(self, field.name) for field in fields(Program)}
        return replace(Program(**given), updates=updates, lateral=self.laterals(updates))

    def actions(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions from the first to the last, as far as verdicts that are here say."""
        return self._since(agent, self._led(agent))

    def silence(self, agents: Collection[Unit]) -> int:
        """Return for how many steps of others agents may hear nothing: as long as a verdict takes."""
        return max(super().silence(agents), 1 + self._watched.chunks if self.ends else 1)

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        verdicts = [Edge(VERDICT, OBSERVER, agent)] if self.ends else []
        asked = [Edge(ASKED, self.asker, agent)] if self.asks else []
        return sorted([*super().inbound(agent), *verdicts, *asked])

    def heard(self, message: Any) -> None:
        """Take note of a message that has arrived: a verdict may end the run."""
        if (name := message.tag.edge.name) in (VERDICT, ASKED):
            self.verdicts.hear(name, message.tag.index, message.tensors[0].tolist())

    def saved(self, version: int) -> bool:
        """Return whether the state of all agents is saved at a version, as planned or as a verdict has said."""
        return super().saved(version) or bool(self._asked(version) & SAVE)

    def crossing(self, tag: Tag) -> range:
        """Return the versions whose cut a message crosses: a verdict those until its agents hear it."""
        if tag.edge.name == VERDICT:
            return range(tag.index, tag.index + self.lead - self.ahead)
        # A run that goes on is asked at its first version, whether or not it was.
        return range(tag.index, tag.index + 1) if tag.edge.name == ASKED else super().crossing(tag)

    @property
    def _watched(self) -> Watch:
        assert self.watch is not None
        return self.watch

    def _asked(self, version: int) -> int:
        """Return what is asked for a version."""
        return self.verdicts.said(ASKED, version - self.notice)

    def _led(self, agent: Unit) -> Iterator[Action]:
        """Yield the actions of the whole run until a verdict ends it, then the rest of those of the shorter one."""
        marked, done = self._marked(agent), 0
        # All verdicts that were heard before the save said that the run goes on.
        past = self.saves.since > (0 if agent == OBSERVER else self.schedule_of(agent.group).begins)
        asked = self._asking(max(self.saves.since, self.schedule.begins + 1))
        for found in marked:
            if isinstance(found, Action):
                yield found
                done += found.kind is not Kind.JUDGE
                if found.kind is Kind.SAVE:
                    past = past and found.index != self.saves.since
                    if self._asked(found.index) & LEAVE:
                        yield from self._discarded(agent, marked, found.index)
                        return
                continue
            if asked is not None and found == asked + self.delay:
                yield Action(Kind.HEED, asked, needs=(self._tag(ASKED, agent, asked),))
                asked = self._next(asked, self.verdicts.known(ASKED, asked))
            version = found + self.ahead - self.lead
            if self.judged(version, self.updates):
                yield Action(Kind.HEED, version, needs=(self._tag(VERDICT, agent, version),))
                if not past and self.verdicts.known(VERDICT, version)[0] & END_RUN:
                    yield from self._rest(agent, version + self.lead, done, found)
                    if asked is not None and asked < found:
                        yield Action(Kind.DISCARD, asked, needs=(self._tag(ASKED, agent, asked),))
                    return
            if agent == self.asker and found == asked:
                yield Action(Kind.JUDGE, found, sends=self._tags(ASKED, found))

    def _asking(self, version: int) -> int | None:
        """Return the version, if it can be said there what is asked."""
        return version if self.asks and version + self.notice < self.updates else None

    def _next(self, version: int, said: Said) -> int | None:
        """Return where it is said next what is asked; None where nothing can be, or all leave."""
        code, updates = said
        # Not before all have heard the last, so that no more than one is under way.
        return None if code & LEAVE else self._asking(version + max(updates, self.delay))

    def _marked(self, agent: Unit) -> Iterator[Action | int]:
        """Yield an agent's actions, and each version as soon as it has come to that."""
        if agent == OBSERVER:
            yield from self._looked()
            return
        for action in self._whole(agent):
            yield action
            if action.kind is Kind.UPDATE:
                yield action.index + 1

    def _looked(self) -> Iterator[Action | int]:
        for n in range(self.schedule.begins, self.updates):
            yield n + 1
            yield from self._watched.heard(self.units, n, self.updates)
            if self.judged(n + 1, self.updates):
                yield Action(Kind.JUDGE, n + 1, sends=self._tags(VERDICT, n + 1))
            if self.saved(n + 1):
                yield Action(Kind.SAVE, n + 1)

    def _discarded(self, agent: Unit, marked: Iterable[Action | int], version: int) -> Iterator[Action]:
        """Yield what takes all that is under way to an agent when the run leaves."""
        # One by one: several may be on one edge, of which an action waits for the first alone.
        for tag in list(self._under_way(agent, marked, version)):
            yield Action(Kind.DISCARD, version, needs=(tag,))

    def _under_way(self, agent: Unit, marked: Iterable[Action | int], version: int) -> Iterator[Tag]:
        """Yield what is sent to an agent before a save of all, and would be taken after it."""
        for found in marked:
            if isinstance(found, Action):
                yield from (tag for tag in found.needs if version in self.crossing(tag))
            # No message is under way for longer.
            elif found > version + self.ahead + 1:
                break
        first = max(self.every, (version - self.lead) // self.every * self.every)
        looks = (v for v in range(first, version + 1, self.every) if self.judged(v, self.updates))
        verdicts = (self._tag(VERDICT, agent, v) for v in looks)
        yield from (tag for tag in verdicts if version in self.crossing(tag))

    def _rest(self, agent: Unit, updates: int, done: int, version: int) -> Iterator[Action]:
        """Yield what a shorter run does after so many actions, which must be the same in both, at a version."""
        shorter = self.until(updates)._whole(agent)
        for action in _unsaved(islice(self._whole(agent), done)):
            if (due := next(_unsaved(shorter), None)) != action:
                raise ProtocolError(f"{agent} has done {action}, where a run of {updates} updates does {due}")
        yield from dropwhile(lambda action: action.kind is Kind.SAVE and action.index < version, shorter)

    def _tag(self, name: str, agent: Unit, version: int) -> Tag:
        return Tag(Edge(name, OBSERVER if name == VERDICT else self.asker, agent), version)

    def _tags(self, name: str, version: int) -> tuple[Tag, ...]:
        return tuple(self._tag(name, agent, version) for agent in self.agents)


def _unsaved(actions: Iterator[Action]) -> Iterator[Action]:
    """Leave out what saves the state of a run, which changes nothing and may be done in one of two alone."""
    return (action for action in actions if action.kind not in (Kind.KEEP, Kind.SAVE))
