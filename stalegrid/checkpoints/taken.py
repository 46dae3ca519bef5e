"""Who writes the checkpoints of a run, one run at a time, and whether it has come to its end.

Does not know: what is in a checkpoint, what a run does.

Who begins asks for the whole lock and then shares it with the processes of the run, each of which takes its part by
itself.  So a run goes on as long as one of them does, also where the one that started it was killed.
"""

import fcntl
import shutil
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from stalegrid.checkpoints.layout import version_of
from stalegrid.errors import ConfigError
from stalegrid.written import is_file, is_folder, read_text, write_text, writing

LOCK = "lock"
"""The file that is locked; it stays, since one that is removed could be locked twice."""

ENDED = "ended"
"""The file that says at which version the run has come to its end."""

_DIGITS = 32


@contextmanager
def taken(checkpoints: Path) -> Iterator[None]:
    """Be the run that writes here, until it and all its processes have ended; the folder is made if need be.

    Raises:
        ConfigError: another one still does.
        OutputError: the folder cannot be written.
    """
    with writing(checkpoints):
        checkpoints.mkdir(exist_ok=True)
    with _opened(checkpoints) as file:
        _lock(file, fcntl.LOCK_EX, checkpoints)
        _lock(file, fcntl.LOCK_SH, checkpoints)
        yield


@contextmanager
def shared(checkpoints: Path) -> Iterator[None]:
    """Be a process of the run that writes here.

    Raises:
        ConfigError: that run is over, and another one writes here.
    """
    with _opened(checkpoints) as file:
        _lock(file, fcntl.LOCK_SH, checkpoints)
        yield


def check_free(checkpoints: Path) -> None:
    """Check that no run writes here now.

    Raises:
        ConfigError: one does.
    """
    if is_file(checkpoints / LOCK):
        with taken(checkpoints):
            pass


def goes_on(checkpoints: Path) -> bool:
    """Return whether a run writes here now."""
    try:
        check_free(checkpoints)
    except ConfigError:
        return True
    return False


@contextmanager
def _opened(checkpoints: Path) -> Iterator[IO[str]]:
    with writing(checkpoints / LOCK):
        file = (checkpoints / LOCK).open("a")
    with file:
        yield file


def _lock(file: IO[str], kind: int, checkpoints: Path) -> None:
    try:
        fcntl.flock(file, kind | fcntl.LOCK_NB)
    except BlockingIOError as problem:
        raise ConfigError(
            f"the run still goes on, or a process of it has not ended yet (folder: {checkpoints.parent}, locked: "
            f"{checkpoints / LOCK}); wait for its end, or end it"
        ) from problem
    except OSError as problem:
        warnings.warn(
            f"the file system knows no locks ({checkpoints / LOCK}: {problem.strerror}); let no other run write into "
            "this folder meanwhile",
            stacklevel=2,
        )


def write_end(checkpoints: Path, version: int) -> None:
    """Note that the run has come to its end.

    Raises:
        OutputError: that cannot be written.
    """
    write_text(checkpoints / ENDED, f"{version}\n")


def end_of(checkpoints: Path) -> str | None:
    """Return the version at which the run has come to its end, or None if it has not.

    Raises:
        DataError: that cannot be read.
    """
    path = checkpoints / ENDED
    return read_text(path, _DIGITS).strip() if is_file(path) else None


def forget_after(checkpoints: Path, version: int) -> None:
    """Remove what lies behind a version: whole or not, the run that goes on from there writes it anew.

    Raises:
        OutputError: something cannot be removed.
    """
    if not is_folder(checkpoints):
        return
    with writing(checkpoints):
        (checkpoints / ENDED).unlink(missing_ok=True)
        for folder in checkpoints.iterdir():
            found = version_of(folder)
            if found is not None and found > version:
                shutil.rmtree(folder)
