"""A run that may end early: when its agents hear whether it goes on, and where it then ends.

Does not know: who asks for an end and why, what agents do.

Units run ahead of the observer and do not wait for it, so an end that was to come at once would come at another version
in each.  Where somebody may ask for one, the observer judges every look: H(V), an action of each agent, needs its
verdict of version V, and an end that was asked for at V comes at version V + lead.  H(V) lies behind all that a run of
V + lead updates has in common with a longer one and before all in which they differ.  So what a stopped run computes is
what a run that was to end there computes, no timing changes where it ends, and a unit waits for a verdict only if the
observer is a lead behind.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, fields, replace
from itertools import islice
from threading import Condition
from typing import Any

from stalegrid.errors import ProtocolError
from stalegrid.programs.actions import Action, Edge, Kind, Tag
from stalegrid.programs.grid import OBSERVER, Unit
from stalegrid.programs.lateral import Lateral
from stalegrid.programs.pipeline import Program
from stalegrid.programs.watch import Watch

VERDICT = "verdict"
"""The name of the edges from the observer."""

END_RUN, SAVE, LEAVE = 1, 2, 4
"""What a verdict may say, added up: that the run ends, that all agents save their state, that they then leave."""

Codes = Callable[[int], int]
"""What the verdict of a version says."""

Marked = tuple[Action, int | None]
"""An action, and the version that is judged after it."""


class Verdicts:
    """What a process has heard; threads that receive for its agents may wait for it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._heard: dict[int, int] = {}

    def __reduce__(self) -> tuple[type["Verdicts"], tuple[()]]:
        return Verdicts, ()  # another process has heard nothing yet

    def hear(self, version: int, code: int) -> None:
        """Note a verdict, which comes once for every agent that lives here."""
        with self._changed:
            self._heard[version] = code
            self._changed.notify_all()

    def known(self, version: int) -> int:
        """Return what the verdict of a version, which is here, says."""
        return self._heard[version]

    def said(self, version: int) -> int:
        """Return the same, or that it says nothing where there is none."""
        return self._heard.get(version, 0)

    def left(self, lead: int) -> int | None:
        """Return the first version that a verdict lets the run leave at, if one does."""
        with self._changed:
            left = (v + lead for v, code in self._heard.items() if code & LEAVE and not code & END_RUN)
            return min(left, default=None)

    def awaited(self, version: int) -> int:
        """Return the same as soon as the verdict is here."""
        with self._changed:
            self._changed.wait_for(lambda: version in self._heard)
        return self._heard[version]


@dataclass(frozen=True, kw_only=True)
class Stoppable(Program):
    """The action sequences of a run that may end early.

    Args:
        ahead: rounds by which an action may depend on how long the run is.
        laterals: updates of a run -> when its groups exchange.
        verdicts: that this process has heard.
        often: whether the observer judges every report, and not every evaluation.
    """

    ahead: int
    laterals: Callable[[int], Lateral]
    verdicts: Verdicts
    often: bool = False

    @classmethod
    def of(
        cls, program: Program, ahead: int, laterals: Callable[[int], Lateral], *, often: bool = False
    ) -> "Stoppable":
        """Return a program that may be stopped.

        Raises:
            ConfigError: there is none of so few updates as the first verdict could leave.
        """
        given = {field.name: getattr(program, field.name) for field in fields(program)}
        made = cls(**given, ahead=ahead, laterals=laterals, verdicts=Verdicts(), often=often)
        first = (made.schedule.begins // made.every + 1) * made.every
        if made.judged(first, made.updates):
            made.until(first + made.lead)
        return made

    @property
    def every(self) -> int:
        """Updates from one verdict to the next: those of evaluations, or of reports if all is evaluated at the end."""
        return (None if self.often else self._watched.snapshot_every) or self._watched.report_every

    @property
    def left(self) -> int | None:
        """The version at which the run has left, if a verdict that was heard said so."""
        return self.verdicts.left(self.lead)

    @property
    def lead(self) -> int:
        """Updates from the version that a verdict is of to the end."""
        # One more than agents must know before: they send the snapshot that is judged in between.
        return -(-(self.ahead + 1) // self.every) * self.every

    def judged(self, version: int, updates: int) -> bool:
        """Return whether a version of a run of so many updates has a verdict, which must be able to shorten it."""
        return version > self.schedule.begins and version % self.every == 0 and version + self.lead < updates

    def until(self, updates: int) -> Program:
        """Return the program of a run that was to make so many updates."""
        given = {field.name: getattr(self, field.name) for field in fields(Program)}
        return replace(Program(**given), updates=updates, lateral=self.laterals(updates))

    def actions(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions from the first to the last, as far as verdicts that are here say."""
        return self._since(agent, self._led(agent, self.verdicts.known))

    def due(self, edge: Edge) -> Iterator[Tag]:
        """Yield the messages of an edge, from first to last; waits where a verdict says whether there are more."""
        acts = self._since(edge.target, self._led(edge.target, self.verdicts.awaited))
        return (tag for action in acts for tag in action.needs if tag.edge == edge)

    def endless(self, edge: Edge) -> bool:
        """Return that no receive may be posted ahead: a verdict may cut each edge short."""
        return True

    def silence(self, agents: Collection[Unit]) -> int:
        """Return for how many steps of others agents may hear nothing: as long as a verdict takes."""
        return max(super().silence(agents), 1 + self._watched.chunks)

    def inbound(self, agent: Unit) -> list[Edge]:
        """Return every edge on which the agent ever receives, in canonical order."""
        return sorted([*super().inbound(agent), Edge(VERDICT, OBSERVER, agent)])

    def heard(self, message: Any) -> None:
        """Take note of a message that has arrived: a verdict may end the run."""
        if message.tag.edge.name == VERDICT:
            self.verdicts.hear(message.tag.index, int(message.tensors[0].item()))

    def saved(self, version: int) -> bool:
        """Return whether the state of all agents is saved at a version, as planned or as a verdict has said."""
        return super().saved(version) or bool(self._said(version) & SAVE)

    def crossing(self, tag: Tag) -> range:
        """Return the versions whose cut a message crosses: a verdict those until its agents hear it."""
        if tag.edge.name != VERDICT:
            return super().crossing(tag)
        return range(tag.index, tag.index + (self.lead - self.ahead if tag.edge.target != OBSERVER else 0))

    @property
    def _watched(self) -> Watch:
        assert self.watch is not None
        return self.watch

    def _said(self, version: int) -> int:
        """Return what a verdict has said of a version."""
        return self.verdicts.said(version - self.lead)

    def _led(self, agent: Unit, says: Codes) -> Iterator[Action]:
        """Yield the actions of the whole run until a verdict ends it, then the rest of those of the shorter one."""
        marked = self._looked() if agent == OBSERVER else self._noticed(agent)
        # All verdicts that were heard before the save said that the run goes on.
        past = self.saves.since > (0 if agent == OBSERVER else self.schedule_of(agent.group).begins)
        for done, (action, version) in enumerate(marked, start=1):
            yield action
            if action.kind is Kind.SAVE:
                past = past and action.index != self.saves.since
                if self._said(action.index) & LEAVE:
                    # One by one: several may be on one edge, of which an action waits for the first alone.
                    for tag in list(self._under_way(agent, marked, action.index)):
                        yield Action(Kind.DISCARD, action.index, needs=(tag,))
                    return
            if version is None or not self.judged(version, self.updates):
                continue
            if agent == OBSERVER:
                everybody = (*self.units, OBSERVER)
                yield Action(Kind.JUDGE, version, sends=tuple(_verdict(unit, version) for unit in everybody))
            yield Action(Kind.HEED, version, needs=(_verdict(agent, version),))
            if not past and says(version) & END_RUN:
                yield from self._rest(agent, version + self.lead, done)
                return

    def _under_way(self, agent: Unit, marked: Iterable[Marked], version: int) -> Iterator[Tag]:
        """Yield what is sent to an agent before a save of all, and would be taken after it."""
        # The observer, which makes no update to end this at, has heard all that units tell of a version when it saves.
        for action, _ in marked if agent != OBSERVER else ():
            yield from (tag for tag in action.needs if version in self.crossing(tag))
            # No message is under way for longer.
            if action.kind is Kind.UPDATE and action.index > version + self.ahead:
                break
        first = max(self.every, (version - self.lead) // self.every * self.every)
        verdicts = (_verdict(agent, v) for v in range(first, version + 1, self.every) if self.judged(v, self.updates))
        yield from (tag for tag in verdicts if version in self.crossing(tag))

    def _noticed(self, agent: Unit) -> Iterator[Marked]:
        """Yield a unit's actions, each with the version of whose verdict it must hear next."""
        for action in self._whole(agent):
            yield action, action.index + 1 + self.ahead - self.lead if action.kind is Kind.UPDATE else None

    def _looked(self) -> Iterator[Marked]:
        """Yield the observer's actions, each with the version that it is done with then."""
        watch, version = self._watched, 0
        for action in self._whole(OBSERVER):
            if action.kind is Kind.REPORT:
                version = action.index + 1
                done = not watch.snapshots(version, self.updates)
            elif action.kind is Kind.COLLECT:
                version = action.index
                done = not watch.chunks
            elif action.kind is Kind.SAVE:
                done = False
            else:
                done = action.index + 1 == watch.chunks
            yield action, version if done else None

    def _rest(self, agent: Unit, updates: int, done: int) -> Iterator[Action]:
        """Yield what a shorter run does after so many actions, which must be the same in both."""
        shorter = self.until(updates)._whole(agent)
        for action in _unsaved(islice(self._whole(agent), done)):
            if (due := next(_unsaved(shorter), None)) != action:
                raise ProtocolError(f"{agent} has done {action}, where a run of {updates} updates does {due}")
        yield from shorter


def _unsaved(actions: Iterator[Action]) -> Iterator[Action]:
    """Leave out what saves the state of a run, which changes nothing and may be done in one of two alone."""
    return (action for action in actions if action.kind not in (Kind.KEEP, Kind.SAVE))


def _verdict(agent: Unit, version: int) -> Tag:
    return Tag(Edge(VERDICT, OBSERVER, agent), version)
