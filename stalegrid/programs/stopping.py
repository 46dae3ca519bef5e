"""A run that may end early: when its agents hear whether it goes on, and where it then ends.

Does not know: who asks for an end and why, what agents do.

Units run ahead of the observer and do not wait for it, so an end that was to come at once would come at another version
in each.  Where somebody may ask for one, the observer judges every look: H(V), an action of each agent, needs its
verdict of version V, and an end that was asked for at V comes at version V + lead.  H(V) lies behind all that a run of
V + lead updates has in common with a longer one and before all in which they differ.  So what a stopped run computes is
what a run that was to end there computes, no timing changes where it ends, and a unit waits for a verdict only if the
observer is a lead behind.
"""

from collections.abc import Callable, Collection, Iterator
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

Stops = Callable[[int], bool]
"""Whether the verdict of a version ends the run."""

Marked = tuple[Action, int | None]
"""An action, and the version that is judged after it."""


class Verdicts:
    """What a process has heard; threads that receive for its agents may wait for it."""

    def __init__(self) -> None:
        self._changed = Condition()
        self._heard: dict[int, bool] = {}

    def __reduce__(self) -> tuple[type["Verdicts"], tuple[()]]:
        return Verdicts, ()  # another process has heard nothing yet

    def hear(self, version: int, stop: bool) -> None:
        """Note a verdict, which comes once for every agent that lives here."""
        with self._changed:
            self._heard[version] = stop
            self._changed.notify_all()

    def known(self, version: int) -> bool:
        """Return whether the verdict of a version, which is here, ends the run."""
        return self._heard[version]

    def awaited(self, version: int) -> bool:
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
    """

    ahead: int
    laterals: Callable[[int], Lateral]
    verdicts: Verdicts

    @classmethod
    def of(cls, program: Program, ahead: int, laterals: Callable[[int], Lateral]) -> "Stoppable":
        """Return a program that may be stopped.

        Raises:
            ConfigError: there is none of so few updates as the first verdict could leave.
        """
        given = {field.name: getattr(program, field.name) for field in fields(program)}
        made = cls(**given, ahead=ahead, laterals=laterals, verdicts=Verdicts())
        if made.judged(made.every, made.updates):
            made.until(made.every + made.lead)
        return made

    @property
    def every(self) -> int:
        """Updates from one verdict to the next: those of evaluations, or of reports if all is evaluated at the end."""
        return self._watched.snapshot_every or self._watched.report_every

    @property
    def lead(self) -> int:
        """Updates from the version that a verdict is of to the end."""
        # One more than agents must know before: they send the snapshot that is judged in between.
        return -(-(self.ahead + 1) // self.every) * self.every

    def judged(self, version: int, updates: int) -> bool:
        """Return whether a version of a run of so many updates has a verdict, which must be able to shorten it."""
        return version > 0 and version % self.every == 0 and version + self.lead < updates

    def until(self, updates: int) -> Program:
        """Return the program of a run that was to make so many updates."""
        given = {field.name: getattr(self, field.name) for field in fields(Program)}
        return replace(Program(**given), updates=updates, lateral=self.laterals(updates))

    def actions(self, agent: Unit) -> Iterator[Action]:
        """Yield the agent's actions from the first to the last, as far as verdicts that are here say."""
        return self._led(agent, self.verdicts.known)

    def due(self, edge: Edge) -> Iterator[Tag]:
        """Yield the messages of an edge, from first to last; waits where a verdict says whether there are more."""
        acts = self._led(edge.target, self.verdicts.awaited)
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
            self.verdicts.hear(message.tag.index, bool(message.tensors[0].item()))

    @property
    def _watched(self) -> Watch:
        assert self.watch is not None
        return self.watch

    def _led(self, agent: Unit, stops: Stops) -> Iterator[Action]:
        """Yield the actions of the whole run until a verdict ends it, then the rest of those of the shorter one."""
        marked = self._looked() if agent == OBSERVER else self._noticed(agent)
        for done, (action, version) in enumerate(marked, start=1):
            yield action
            if version is None or not self.judged(version, self.updates):
                continue
            if agent == OBSERVER:
                everybody = (*self.units, OBSERVER)
                yield Action(Kind.JUDGE, version, sends=tuple(_verdict(unit, version) for unit in everybody))
            yield Action(Kind.HEED, version, needs=(_verdict(agent, version),))
            if stops(version):
                yield from self._rest(agent, version + self.lead, done)
                return

    def _noticed(self, agent: Unit) -> Iterator[Marked]:
        """Yield a unit's actions, each with the version of whose verdict it must hear next."""
        for action in super().actions(agent):
            yield action, action.index + 1 + self.ahead - self.lead if action.kind is Kind.UPDATE else None

    def _looked(self) -> Iterator[Marked]:
        """Yield the observer's actions, each with the version that it is done with then."""
        watch, version = self._watched, 0
        for action in super().actions(OBSERVER):
            if action.kind is Kind.REPORT:
                version = action.index + 1
                done = not watch.snapshots(version, self.updates)
            elif action.kind is Kind.COLLECT:
                version = action.index
                done = not watch.chunks
            else:
                done = action.index + 1 == watch.chunks
            yield action, version if done else None

    def _rest(self, agent: Unit, updates: int, done: int) -> Iterator[Action]:
        """Yield what a shorter run does after so many actions, which must be the same in both."""
        shorter = self.until(updates).actions(agent)
        for action in islice(super().actions(agent), done):
            if (due := next(shorter, None)) != action:
                raise ProtocolError(f"{agent} has done {action}, where a run of {updates} updates does {due}")
        yield from shorter


def _verdict(agent: Unit, version: int) -> Tag:
    return Tag(Edge(VERDICT, OBSERVER, agent), version)
