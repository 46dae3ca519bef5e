"""Saves agents to checkpoints and loads them from one, where their program says so.

Does not know: what a state is, how checkpoints are written, when anything is saved.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from stalegrid.agents import Agent, Around, without_batches
from stalegrid.checkpoints import Checkpoint, CheckpointSettings, Shelf, shared
from stalegrid.engines.asking import asked
from stalegrid.engines.leaving import Asks
from stalegrid.objects import State
from stalegrid.observe import tell
from stalegrid.programs import (
    ASKED,
    DOOR,
    END_RUN,
    OBSERVER,
    VERDICT,
    Action,
    Agenda,
    Kind,
    Message,
    Tag,
    Unit,
    learner,
)
from stalegrid.timing import Clock


class Saved(Around):
    """An agent whose state is saved and loaded, with the messages of its own that are under way then.

    Args:
        unit: which.
        agent: that does the work.
        program: of the run.
        shelf: where states are put and taken from.
        clock: that dates the actions of the agent, where time is virtual.
    """

    def __init__(self, unit: Unit, agent: Agent, program: Agenda, shelf: Shelf, clock: Clock | None = None) -> None:
        self._unit = unit
        super().__init__(agent)
        agent.remember()
        self._program = program
        self._shelf = shelf
        self._clock = clock
        self._crossing: dict[Tag, Message] = {}
        self._arrivals: dict[Tag, int] = {}  # of these, in virtual time
        self._end: int | None = None  # version whose verdict ends the run
        self._gone: list[int] = []  # learners that a server has dropped

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        if action.kind is Kind.DISCARD:
            return []
        if action.kind is Kind.SAVE:
            self._save(action.index)
            return []
        if action.kind is Kind.LOAD:
            return self._load(action)
        if action.kind is Kind.STOP:
            # Once the others have heard that an agent has ended, its process may be ended too.
            self._shelf.flush()
        made = self.agent.step(action, inbox)
        if action.kind is Kind.JUDGE and int(made[0].tensors[0][0].item()) & END_RUN:
            self._end = action.index
        if action.kind is Kind.DROP:
            self._gone.append(action.index)
        for message in made:
            # Now: by the time that its sender is saved, its target may have taken it.
            self._note(message)
        return made

    def _note(self, message: Message, arrival: int | None = None) -> None:
        if (before := self._program.outlived(message.tag)) is not None:
            self._crossing.pop(before, None)
            self._arrivals.pop(before, None)
        if self._program.may_cross(message.tag):
            if arrival is None:
                arrival = 0 if self._clock is None else self._clock.arrival(message.tag)
            self._crossing[message.tag] = message
            self._arrivals[message.tag] = arrival

    def _save(self, version: int) -> None:
        crossing = [m for tag, m in self._crossing.items() if version in self._program.crossing(tag)]
        messages = [(str(m.tag.edge), m.tag.index, m.version, m.tensors, self._arrivals[m.tag]) for m in crossing]
        own = {"agent": self.agent.state_dict(), "messages": messages, **self._told()}
        self._shelf.put(self._unit, version, own)
        self._crossing = {t: m for t, m in self._crossing.items() if max(self._program.crossing(t)) > version}
        self._arrivals = {tag: self._arrivals[tag] for tag in self._crossing}
        # Who is gone has nothing to save, and is not waited for.
        for number in self._gone if self._unit == DOOR else ():
            self._shelf.put(learner(number), version, {})

    def _told(self) -> State:
        clock = None if self._clock is None else self._clock.state_of(self._unit)
        own = {"end": self._end} if self._unit == OBSERVER else {"gone": self._gone}
        return {"clock": clock, **own}

    def _load(self, action: Action) -> list[Message]:
        whose = self._program.begins_as(self._unit)
        state: Mapping[str, Any] = self._shelf.take(whose)
        self.agent.load_state_dict(state["agent"] if whose == self._unit else without_batches(state["agent"]))
        self._gone = state.get("gone", [])
        known = {(edge, index): rest for edge, index, *rest in state["messages"]}
        made = [self._again(tag, known) for tag in action.sends]
        arrivals = {message.tag: arrival for message, arrival in made}
        if self._clock is not None:
            # A run that has had no virtual time so far begins at 0.
            own = self._clock.state_of(self._unit) if state["clock"] is None else state["clock"]
            self._clock.go_on(self._unit, own, arrivals)
        for message, arrival in made:
            self._note(message, arrival)
        return [message for message, _ in made]

    def _again(self, tag: Tag, known: Mapping[tuple[str, int], Any]) -> tuple[Message, int]:
        """Return a message that is under way, and when it arrives."""
        if tag.edge.name in (VERDICT, ASKED):
            # What was asked for was done when the run was saved, or is of no use any more.
            said = [0] if tag.edge.name == VERDICT else [0, 1]
            return Message(tag, tag.index, (torch.tensor(said, dtype=torch.uint8),)), 0
        version, tensors, arrival = known[str(tag.edge), tag.index]
        return Message(tag, version, tensors), arrival


@dataclass(frozen=True)
class Keeping:
    """How a run is saved, and what it goes on from.

    Args:
        folder: of the checkpoints.
        settings: when, and how many.
        facts: what a manifest says besides.
        source: the checkpoint that the run goes on from; None for its beginning.
    """

    folder: Path
    settings: CheckpointSettings
    facts: Mapping[str, Any]
    source: Checkpoint | None

    @contextmanager
    def saving(
        self,
        agents: dict[Unit, Agent],
        program: Agenda,
        device: torch.device,
        leaving: Callable[[], bool],
        clock: Clock | None = None,
    ) -> Iterator[dict[Unit, Agent]]:
        """Let all agents of a process be saved and loaded; at the end, what was saved is on the disk.

        Args:
            agents: of this process.
            program: of the run.
            device: that they compute on.
            leaving: whether somebody wants the run to leave.
            clock: that dates their actions, where time is virtual.
        """
        say = partial(tell, name="stderr")
        shelf = Shelf(self.folder, program.agents, self.facts, self.settings.keep, say, self.source, device)
        asks = Asks(self.settings.minutes, leaving)
        with shared(self.folder):
            try:
                told = {unit: asked(unit, agent, program, asks) for unit, agent in agents.items()}
                yield {unit: Saved(unit, agent, program, shelf, clock) for unit, agent in told.items()}
            finally:
                shelf.flush()
