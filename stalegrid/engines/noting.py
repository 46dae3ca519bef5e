"""Notes the order in which a server takes gradients, line by line, so that nothing is lost when a run ends early.

Does not know: what the order is for, how the server works.
"""

import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

from stalegrid.agents import Agent, Around
from stalegrid.errors import DataError
from stalegrid.objects import State
from stalegrid.programs import DELIVERIES, DOOR, Action, Kind, Message, Unit
from stalegrid.written import open_again, open_new, writing


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
        self._bytes = 0  # of the record
        self._digest = hashlib.blake2b(digest_size=16)  # of it

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

    def state_dict(self) -> State:
        """Return the state of the server, and where the record ends, all of which is on the disk now."""
        with writing(Path(self._file.name)):
            os.fsync(self._file.fileno())
        record = {"clock": self._clock, "bytes": self._bytes, "digest": self._digest.hexdigest()}
        return {"server": super().state_dict(), "record": record}

    def load_state_dict(self, state: State) -> None:
        """Undo :meth:`state_dict`: forget what was noted later.

        Raises:
            DataError: the record is not the one that was written.
        """
        super().load_state_dict(state["server"])
        record, path = state["record"], Path(self._file.name)
        with path.open("rb") as file:
            written = file.read(record["bytes"])
        self._digest.update(written)
        if self._digest.hexdigest() != record["digest"]:
            raise DataError(
                f"the record of deliveries is not the one that was written (file: {path}, bytes: {record['bytes']}); "
                "put the file back"
            )
        with writing(path):
            self._file.truncate(record["bytes"])
        self._clock, self._bytes = record["clock"], record["bytes"]

    def _write(self, entry: dict[str, int]) -> None:
        line = json.dumps(entry) + "\n"
        with writing(Path(self._file.name)):
            self._file.write(line)
        self._bytes += len(line)
        self._digest.update(line.encode())


@contextmanager
def noted(agents: dict[Unit, Agent], folder: Path, *, again: bool = False) -> Iterator[dict[Unit, Agent]]:
    """Note the deliveries of the first server, if it is among the agents, in the folder of the run.

    Args:
        agents: of this process.
        folder: of the run.
        again: whether the run goes on, and has a record of what came before.

    Raises:
        OutputError: the record cannot be opened.
    """
    if DOOR not in agents:
        yield agents
        return
    with (open_again if again else open_new)(folder / DELIVERIES) as file:
        yield {**agents, DOOR: Noted(agents[DOOR], file)}
