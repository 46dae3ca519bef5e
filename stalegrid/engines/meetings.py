"""Notes who met whom, line by line, so that nothing is lost when a run ends early.

Does not know: what the record is for, how units average.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TextIO

from stalegrid.agents import Agent, Around
from stalegrid.programs import MEETINGS, Action, Agenda, Encountering, Message, Unit, line_of, record_of
from stalegrid.written import open_new, writing


class Meeting(Around):
    """A unit whose meetings are noted.

    Args:
        agent: that does the work.
        file: for the record.
    """

    def __init__(self, agent: Agent, file: TextIO) -> None:
        super().__init__(agent)
        self._file = file

    def step(self, action: Action, inbox: Sequence[Message]) -> list[Message]:
        """Execute one action; see :class:`stalegrid.agents.Agent`."""
        # First the step: what it refuses is not in the record.
        made = self.agent.step(action, inbox)
        if (line := line_of(action)) is not None:
            with writing(Path(self._file.name)):
                self._file.write(f"{line}\n")
        return made


@contextmanager
def meetings_noted(agents: dict[Unit, Agent], program: Agenda, folder: Path) -> Iterator[dict[Unit, Agent]]:
    """Note the meetings of the units among some agents, where timing decides who meets whom.

    Args:
        agents: of this process.
        program: of the run.
        folder: of the run.

    Raises:
        OutputError: a record cannot be opened.
    """
    if not isinstance(program, Encountering):
        yield agents
        return
    records = folder / MEETINGS
    with writing(records):
        records.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        files = {u: stack.enter_context(open_new(record_of(records, u))) for u in agents if u in program.units}
        yield {u: Meeting(agent, files[u]) if u in files else agent for u, agent in agents.items()}
