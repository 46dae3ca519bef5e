"""What a run is asked to begin with.

Does not know: what that does to a run.
"""

from pathlib import Path

from stalegrid.checkpoints import Checkpoint, read_checkpoint
from stalegrid.errors import ConfigError
from stalegrid.transfer.beginning import ANEW, FromFile, FromRun, Start


def start_of(out: Path | None, reshaped: Path | str | None, start_from: Path | str | None) -> Start:
    """Return what a run begins with.

    Args:
        out: folder that it writes to.
        reshaped: folder of a run, or of one of its checkpoints, that goes on in another shape; None for none.
        start_from: file of a model; None for none.

    Raises:
        ConfigError: both are named, or the run would write into the folder of the other one.
        DataError: there is no whole checkpoint.
    """
    if reshaped is None:
        return ANEW if start_from is None else FromFile(Path(start_from))
    if start_from is not None:
        raise ConfigError(
            f"a run begins with one thing (resume: {reshaped}, start_from: {start_from}); leave out one of them"
        )
    source = read_checkpoint(Path(reshaped))
    if out is None or out.resolve() == source.run.resolve():
        raise ConfigError(
            f"a run that goes on in another shape leaves the other one's folder as it is (resume: {source.run}, out: "
            f"{out}); name a new one (out)"
        )
    return FromRun(source)


def check_start(source: Checkpoint | None, start: Start) -> None:
    """Check that a run that goes on to the bit began with the same file, whose frozen parameters no checkpoint has.

    Args:
        source: that it goes on from; None for none.
        start: that it is asked to have begun with.

    Raises:
        ConfigError: it did not.
    """
    if source is None:
        return
    then, now = source.manifest["start"].get("file"), start.path if isinstance(start, FromFile) else None
    if then != (None if now is None else str(now)):
        raise ConfigError(f"the run began with another model (start_from: {now}, then: {then}); name the same file")
