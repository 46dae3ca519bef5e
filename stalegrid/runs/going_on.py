"""What a run goes on from, and in which folder.

Does not know: what a checkpoint says, plans.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from stalegrid.checkpoints import Checkpoint, CheckpointSettings, check_not_ended, newest, read_checkpoint
from stalegrid.config import Settings
from stalegrid.errors import ConfigError
from stalegrid.observe import tell

AUTO = "auto"
"""What to resume from: the newest checkpoint in the folder of the run, if there is one."""


def goes_on(settings: Settings, resume: Path | str | None) -> tuple[Settings, Checkpoint | None]:
    """Return what a run goes on from, and settings of its folder.

    Raises:
        ConfigError: there is nothing to go on from, another folder is named, or the run has come to its end.
    """
    if resume is None:
        return settings, None
    out = settings.output.folder
    if str(resume) == AUTO:
        return settings, _newest(out, settings.checkpoint)
    source = read_checkpoint(Path(resume))
    run = source.run
    if out is not None and out.resolve() != run.resolve():
        raise ConfigError(f"a run goes on in its own folder (resume: {run}, out: {out}); leave out the other one")
    if Path(resume).resolve() != source.folder.resolve():
        check_not_ended(run)
    return replace(settings, output=replace(settings.output, folder=run)), source


def _newest(out: Path | None, checkpoint: CheckpointSettings) -> Checkpoint | None:
    """Return the newest whole checkpoint in the folder of a run, if there is one."""
    if out is None:
        raise ConfigError("resume auto looks for checkpoints in the folder of the run; name that (out)")
    if not checkpoint.wanted:
        raise ConfigError("resume auto is for runs that write checkpoints; say when (checkpoint)")
    check_not_ended(out)
    return newest(out, partial(tell, name="stderr"))
