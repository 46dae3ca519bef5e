"""The agents of one process, their next actions, and the messages that wait for them.

Does not know: other processes, time, what an action computes.
"""

from collections import deque
from collections.abc import Collection, Iterable, Mapping

from stalegrid.agents import Agent
from stalegrid.errors import ProtocolError, StalegridError, Wait
from stalegrid.programs import OBSERVER, Action, Agenda, Edge, Hoped, Message, Tag, Unit


class Network:
    """Steps agents whose messages are there.

    Args:
        program: what is due.
        agents: those that live here.
    """

    def __init__(self, program: Agenda, agents: Mapping[Unit, Agent]) -> None:
        self._program = program
        self._agents = agents
        self._programs = {unit: program.actions(unit) for unit in agents}
        self._next: dict[Unit, Action] = {}
        self._undecided: dict[Unit, Hoped] = {}
        self._waiting: dict[Edge, deque[Message]] = {e: deque() for unit in agents for e in program.inbound(unit)}
        for unit in agents:
            self._advance(unit)

    @property
    def done(self) -> bool:
        """Whether every agent has finished its program."""
        return not self._next and not self._undecided

    def deliver(self, message: Message) -> None:
        """Put a message where its target will find it."""
        target = message.tag.edge.target
        self._waiting[message.tag.edge].append(message)
        self._program.heard(message)
        # Others wait for messages of their own; with many learners, asking all of them would cost as much as learning.
        if target in self._undecided:
            self._advance(target)

    def lose(self, edge: Edge) -> bool:
        """Go on without the agent at the other end of an edge, which is gone; return whether that is possible."""
        # An edge breaks at both of its ends; the one that lives here is not gone.
        gone = edge.source if edge.target in self._agents else edge.target
        if not self._program.expendable(gone):
            return False
        self._program.lost(gone)
        self._decide()
        return True

    def late(self) -> bool:
        """Go on though nothing came for as long as anything may take; return whether that is possible."""
        possible = self._program.late()
        self._decide()
        return possible

    def ready(self) -> list[Unit]:
        """Return the agents whose next action has all its messages, in order."""
        return [unit for unit in self._agents if unit in self._next and self._is_ready(unit)]

    def due(self, unit: Unit) -> Action:
        """Return the next action of an agent."""
        return self._next[unit]

    def step(self, unit: Unit) -> list[Message]:
        """Execute the next action of a ready agent and return what it sends.

        Raises:
            ProtocolError: a message is not the one that is due.
        """
        action = self._next[unit]
        inbox = [self._take(tag) for tag in action.needs]
        try:
            sent = self._agents[unit].step(action, inbox)
        # Our own errors say where they come from.
        except StalegridError:
            raise
        except Exception as problem:
            # A note, so that whatever the user's code has raised keeps its class.
            problem.add_note(f"at unit {unit}, action {action}")
            raise
        self._advance(unit)
        return sent

    def missing(self) -> dict[Unit, list[Tag]]:
        """Return what every blocked agent waits for, or may wait for."""
        needed = {unit: action.needs for unit, action in self._next.items()} | self._undecided
        absent = {u: [t for t in needed.get(u, ()) if not self._waiting[t.edge]] for u in self._agents}
        return {unit: tags for unit, tags in absent.items() if tags}

    def _is_ready(self, unit: Unit) -> bool:
        return all(self._waiting[tag.edge] for tag in self._next[unit].needs)

    def _take(self, tag: Tag) -> Message:
        message = self._waiting[tag.edge].popleft()
        if message.tag != tag:
            raise ProtocolError(f"{tag.edge.target} needs {tag} but was sent {message.tag}")
        return message

    def _decide(self) -> None:
        # Who is gone may settle what is due at anybody; asking again changes nothing where it does not.
        for unit in sorted(self._undecided):
            self._advance(unit)

    def _advance(self, unit: Unit) -> None:
        self._undecided.pop(unit, None)
        self._next.pop(unit, None)
        try:
            action = next(self._programs[unit])
        except StopIteration:
            return
        if isinstance(action, Action):
            self._next[unit] = action
        else:
            self._undecided[unit] = action


def waits_of(missing: Mapping[Unit, list[Tag]]) -> list[Wait]:
    """Return who waits for which message of whom."""
    return [
        Wait(str(unit), f"{tag.edge.name} of batch or update {tag.index}", str(tag.edge.source))
        for unit, tags in missing.items()
        for tag in tags
    ]


def describe(waits: Iterable[Wait]) -> str:
    """Say who waits for which message of whom."""
    return "; ".join(f"{called(w.who)} waits for {w.what} from {w.source}" for w in dict.fromkeys(waits))


def stalled(waits: Collection[Wait]) -> str:
    """Say first who is silent, which are those who are waited for and do not wait themselves, then who waits."""
    who = {wait.who for wait in waits}
    silent = [called(source) for source in dict.fromkeys(w.source for w in waits) if source not in who]
    return f"{', '.join(silent) or 'nobody'} {'are' if len(silent) > 1 else 'is'} silent: {describe(waits)}"


def called(name: str) -> str:
    """Return what an agent is called in a sentence."""
    return f"the {name}" if name == str(OBSERVER) else f"unit {name}"
