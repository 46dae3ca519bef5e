"""Dates the actions of a program: when each would begin and end on given devices and links.

Does not know: tensors, who executes the actions, in which order of those that the program allows.

In a Kahn network no choice depends on time, so time can be computed beside the numbers instead of driving them: an
action begins when its unit is free and its messages are there, a message leaves when its action has ended and its
sender's port is free.  Dates follow by maxima and sums from earlier dates,

    begin(a) = max(free(a'), arrival(t) for t in needs(a)) + handling(needs(a)),    a' the unit's action before a
    end(a)   = begin(a) + duration(a),      free(a) = end(a) + handling(sends(a))
    left(t)  = max(end(a) + handling(sends(a) up to t), left(t') + occupied(t')),    t' its sender's message before t
    arrival(t) = left(t) + occupied(t) + latency,

in whole nanoseconds, whichever order the actions are dated in.  A message that occupies nothing passes by the port; one
that an outage holds back keeps those after it waiting.  No event queue is needed, and nothing can tie.

What would break this is not modelled: a resource that two units share, such as one wire of several links, where it
would matter who comes first.

Saving a run and going on from there takes no time: the dates of a run that goes on are those of one that was never
interrupted.
"""

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from stalegrid.objects import State
from stalegrid.observe import Recorder
from stalegrid.programs import (
    ASKED,
    GRADIENT,
    LENT,
    OBSERVER,
    TAKEN,
    TESTED,
    VERDICT,
    WEIGHTS,
    Action,
    Agenda,
    Edge,
    Kind,
    Program,
    Tag,
    Unit,
)
from stalegrid.timing.columns import DeviceTable
from stalegrid.timing.costs import NANOSECONDS, Cost
from stalegrid.timing.disturbances import Disturbances, Outage
from stalegrid.timing.links import Link
from stalegrid.timing.pace import Pace, durations

LINKED = ("activation", "gradient", "target", WEIGHTS, GRADIENT, "push", "weights", "turn", TESTED, TAKEN, LENT)
"""Edges within a group, or between learners and servers; all others, but those to the observer, are lateral."""

TIMELESS = (Kind.KEEP, Kind.SAVE, Kind.LOAD, Kind.REVIVE, Kind.DISCARD, Kind.STOP)
"""Actions that no uninterrupted run has."""


@dataclass(frozen=True)
class TimeModel:
    """What actions take and messages weigh.

    Args:
        stages: costs of each stage, for the batch of an update, the largest of any group.
        micro_batches: M, in which that batch is split.
        handling: milliseconds of a unit's own time for each MB that it sends or receives.
        nbytes: of every message of an edge, likewise.
        disturbances: what happens to equal devices.
        portions: what part of the largest batch each group takes; all of it if left out.
        unequal: what each unit's own device takes, its parts being the stages, and how hosts are linked; None where all
            are alike.
    """

    stages: tuple[Cost, ...]
    micro_batches: int
    handling: float
    nbytes: Callable[[Edge], int]
    disturbances: Disturbances
    portions: tuple[float, ...] = field(default=(), kw_only=True)
    unequal: DeviceTable | None = field(default=None, kw_only=True)

    def pace(self, unit: Unit) -> Pace:
        """Return what the actions of a unit take; the observer's take no time."""
        if unit == OBSERVER:
            return Pace(unit, {}, self.disturbances)
        stages, portion = self.stages if self.unequal is None else self.unequal.of(unit).parts, self._portion(unit)
        cost = stages[unit.stage]
        own = cost if portion == 1.0 else cost.of_batch(portion)
        return Pace(unit, durations(own, self.micro_batches), self.disturbances)

    def weight(self, edge: Edge) -> int:
        """Return the bytes of every message of an edge, for the batch of its group."""
        of_batch = edge.name in ("activation", "gradient", "target")
        return round(self._portion(edge.source) * self.nbytes(edge)) if of_batch else self.nbytes(edge)

    def handled(self, unit: Unit, nbytes: int) -> int:
        """Return the nanoseconds of a unit's own time that a message of so many bytes takes."""
        each = self.handling if self.unequal is None else self.unequal.of(unit).handling
        return round(nbytes / 1e6 * each * NANOSECONDS)

    def link(self, edge: Edge) -> Link:
        """Return how the messages of an edge travel."""
        if self.unequal is not None and self.unequal.links:
            return self.unequal.link(edge.source, edge.target)
        return self.disturbances.link if edge.name in LINKED else self.disturbances.lateral_link

    def _portion(self, unit: Unit) -> float:
        return self.portions[unit.group] if self.portions else 1.0


def message_bytes(
    stages: Sequence[Cost], program: Program, exchanged: Callable[[Edge, int], int] | None = None
) -> Callable[[Edge], int]:
    """Return the bytes of every message of an edge, as the costs of the stages say.

    Args:
        stages: what each costs.
        program: whose messages.
        exchanged: (edge between groups, bytes of the parameters of their stage) -> bytes; those of the parameters if
            left out.
    """
    micro = program.schedule.micro_batches

    def nbytes(edge: Edge) -> int:
        source = stages[edge.source.stage]
        match edge.name:
            case "activation":
                return source.output // micro
            case "gradient":
                return source.input // micro if program.carries_gradient(edge) else 0
            case "target":
                return stages[edge.target.stage].targets // micro
            case name if name in (WEIGHTS, GRADIENT):
                return sum(source.tied.get(tie.name(edge.source.stage), 0) for tie in program.ties.along(edge))
        return source.parameters if exchanged is None else exchanged(edge, source.parameters)

    return nbytes


@dataclass(slots=True)
class Lane:
    """What the clock knows of one unit.

    Attributes:
        pace: of its actions.
        outages: in which it begins nothing.
        free: when it has ended its last action and handed over what that sends.
        port: when the last byte of its last message has left.
        busy: nanoseconds of all its actions.
        sending: nanoseconds in which it handled messages, or could only wait for one that was under way.
        updates: ends of its updates.
    """

    pace: Pace
    outages: tuple[Outage, ...]
    free: int = 0
    port: int = 0
    busy: int = 0
    sending: int = 0
    updates: list[int] = field(default_factory=list)


@dataclass(slots=True)
class Line:
    """What the clock knows of one edge.

    Attributes:
        sent: nanoseconds that a message takes of its sender's own time.
        taken: likewise of its receiver's.
        occupied: nanoseconds that a message keeps its sender's port busy.
        latency: nanoseconds.
        outages: in which nothing leaves.
        arrivals: of messages that have been sent and not been used.
    """

    sent: int
    taken: int
    occupied: int
    latency: int
    outages: tuple[Outage, ...]
    arrivals: deque[int] = field(default_factory=deque)


class Clock:
    """Dates actions; each unit's must come in the order of its program, and after those that send to it.

    Args:
        program: whose actions.
        model: what they take.
        recorder: who is told; None for nobody.

    Attributes:
        lanes: of every agent.
        lines: of every edge.
        now: end of the action dated last.
    """

    def __init__(self, program: Agenda, model: TimeModel, recorder: Recorder | None = None) -> None:
        self.lanes = {unit: _lane(unit, model) for unit in program.agents}
        self.lines = {edge: _line(edge, model) for unit in program.agents for edge in program.inbound(unit)}
        self.now = 0
        self._recorder = recorder

    def date(self, unit: Unit, action: Action) -> None:
        """Date the next action of a unit; all its messages must have been sent."""
        if action.kind in TIMELESS:
            self._pass(unit, action)
            return
        lane, lines = self.lanes[unit], self.lines
        start, handled, travelled = lane.free, 0, 0
        for tag in action.needs:
            line = lines[tag.edge]
            handled += line.taken
            arrival = line.arrivals.popleft()
            if arrival > start:
                start, travelled = arrival, line.occupied + line.latency
        if travelled or handled:
            # Of a wait, only as much counts as sending as its last message was under way.
            lane.sending += min(start - lane.free, travelled) + handled
            start += handled
        for outage in lane.outages:
            start = outage.after(start)
        taken = lane.pace.of(action.kind)
        self.now = lane.free = end = start + taken
        lane.busy += taken
        if action.kind is Kind.UPDATE:
            lane.updates.append(end)
        if self._recorder is not None:
            self._recorder.executed(unit, action, start, end)
        for tag in action.sends:
            line = lines[tag.edge]
            if line.sent:
                lane.sending += line.sent
                lane.free = end = end + line.sent
            left = _depart(lane, line, end) if line.occupied or line.outages else end
            arrival = left + line.occupied + line.latency
            # A verdict holds nobody up, whenever the last of those whom it judges came so far.
            line.arrivals.append(0 if tag.edge.name in (VERDICT, ASKED) else arrival)
            if self._recorder is not None:
                self._recorder.left(tag, left)
                self._recorder.arrived(tag, arrival)

    def arrival(self, tag: Tag) -> int:
        """Return when the message arrives that was sent last on its edge."""
        return self.lines[tag.edge].arrivals[-1]

    def state_of(self, unit: Unit) -> State:
        """Return what is known of a unit; of its messages :meth:`arrival` tells."""
        lane = self.lanes[unit]
        return {
            "free": lane.free,
            "port": lane.port,
            "busy": lane.busy,
            "sending": lane.sending,
            "updates": lane.updates,
            "drawn": lane.pace.drawn,
        }

    def go_on(self, unit: Unit, state: State, arrivals: Mapping[Tag, int]) -> None:
        """Go on with a unit as it was when it was saved.

        Args:
            unit: which; none of its actions was dated here.
            state: of it.
            arrivals: of the messages that it has sent and that are under way, those of an edge in order.
        """
        lane = self.lanes[unit]
        lane.free, lane.port, lane.busy, lane.sending = (state[n] for n in ("free", "port", "busy", "sending"))
        lane.updates = state["updates"]
        lane.pace.skip(state["drawn"])
        for tag, arrival in arrivals.items():
            self.lines[tag.edge].arrivals.append(arrival)

    def _pass(self, unit: Unit, action: Action) -> None:
        """Note an action that takes no time, and of which an outage is no matter."""
        for tag in action.needs:
            self.lines[tag.edge].arrivals.popleft()
        if self._recorder is not None and action.kind is not Kind.LOAD:  # whose unit has no date yet
            self._recorder.executed(unit, action, self.lanes[unit].free, self.lanes[unit].free)


def _depart(lane: Lane, line: Line, ready: int) -> int:
    left = max(ready, lane.port) if line.occupied else ready
    for outage in line.outages:
        left = outage.after(left)
    if line.occupied:
        lane.port = left + line.occupied
    return left


def _lane(unit: Unit, model: TimeModel) -> Lane:
    return Lane(model.pace(unit), model.disturbances.delays(unit, None))


def _line(edge: Edge, model: TimeModel) -> Line:
    if OBSERVER in (edge.source, edge.target) or edge.name == ASKED:
        # Neither measuring nor asking takes virtual time, so that watching a run does not change its dates.
        return Line(0, 0, 0, 0, ())
    link, nbytes = model.link(edge), model.weight(edge)
    return Line(
        model.handled(edge.source, nbytes),
        model.handled(edge.target, nbytes),
        link.occupied(nbytes),
        round(link.latency * NANOSECONDS),
        model.disturbances.delays(edge.source, edge.target),
    )
