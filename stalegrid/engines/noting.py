"""Notes the order in which a server takes gradients, line by line, so that nothing is lost when a run ends early.

Does not know: what the order is for, how the server works.
"""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stalegrid.agents import Agent, Around
from stalegrid.programs import DELIVERIES, DOOR, Action, Kind, Message, Unit
from stalegrid.written import open_new, writing


class Noted(Around):
    """A server whose deliveries are noted.

    Args:
        agent: that does the work.
        file: for the record.
    """

    def __init__(self, agent: Agent, file: TextIO) -> None:
        super().__init__(agent)
        self._file = file
        self._clock = 0

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        # First the step: what it refuses is not in the record.
        made = self.agent.step(action, inbox)
        if action.kind is Kind.TAKE:
            tag = inbox[0].tag
            number = tag.edge.source.group
            self._write({"learner": number, "batch": tag.index, "version": inbox[0].version, "clock": self._clock})
        elif action.kind is Kind.DROP:
            self._write({"gone": action.index})
        self._clock += action.kind is Kind.UPDATE
        return made

    def _write(self, entry: dict[str, int]) -> None:
        with writing(Path(self._file.name)):
            self._file.write(json.dumps(entry) + "\n")


@contextmanager
def noted(agents: dict[Unit, Agent], folder: Path) -> Iterator[dict[Unit, Agent]]:
    """Note the deliveries of the first server, if it is among the agents, in the folder of the run."""
    if DOOR not in agents:
        yield agents
        return
    with open_new(folder / DELIVERIES) as file:
        yield {**agents, DOOR: Noted(agents[DOOR], file)}
