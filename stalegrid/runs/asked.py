"""A run as it was asked for: what was said of it, and what that alone settles, as its folder.

Does not know: how it is planned and carried out.
"""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from stalegrid.checkpoints import FOLDER, Checkpoint, clear, forget_after, taken, write_end
from stalegrid.config import Settings
from stalegrid.observe import Callback, Logger, Record, open_folder
from stalegrid.plans import ALL, Membership, Plan, ServedPlan, Task
from stalegrid.transfer import ANEW, Start
from stalegrid.written import exists


@dataclass(frozen=True)
class Asked:
    """A run as it was asked for.

    Attributes:
        task: what is trained.
        settings: how.
        callbacks: called with what is told, in the observer's process.
        loggers: where records go too.
        quiet: whether to print nothing.
        keep_units: whether to keep the parameters of every unit in the folder too.
        source: checkpoint that it goes on from, to the bit.
        membership: groups that it goes on without, and that came back.
        hosts: that it was begun on.
        anew: whether it begins anew where one like it came to no checkpoint.
        start: what it begins with, in another shape or from a file.
        given: what the user names again where the run is resumed; None for the task.
    """

    task: Task
    settings: Settings
    callbacks: Sequence[Callback]
    loggers: Sequence[Logger]
    quiet: bool
    keep_units: bool
    source: Checkpoint | None = None
    membership: Membership = ALL
    hosts: int = 1
    anew: bool = False
    start: Start = ANEW
    given: Task | None = None

    @property
    def kept(self) -> bool:
        """Whether there are checkpoints."""
        return self.settings.checkpoint.wanted or self.source is not None

    @property
    def named(self) -> bool:
        """Whether the settings also say what is trained."""
        return "model" in self.settings.plain()

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """Open the folder of the run, in which no other one writes checkpoints meanwhile.

        Raises:
            ConfigError: one does, or the folder cannot be made.
        """
        out = self.settings.output.folder
        again = self.source is not None or (self.anew and out is not None and exists(out))
        with open_folder(out, again=again) as folder, ExitStack() as stack:
            if self.kept:
                stack.enter_context(taken(folder / FOLDER))
            if self.source is not None:
                self.source.check()  # a run that went on until now may have removed it
                forget_after(folder / FOLDER, self.source.version)
            elif again:
                clear(folder)
            yield folder

    def end(self, folder: Path, summary: Record) -> None:
        """Note that the run has come to its end."""
        if self.kept:
            write_end(folder / FOLDER, summary["version"])

    def begun_with(self, plan: Plan | ServedPlan) -> Record:
        """Return what is said of the beginning of a run that goes on from something in another shape."""
        found: Record = self.start.told(plan) if self.source is None else self.source.manifest["start"]
        return found
