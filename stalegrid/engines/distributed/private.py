"""A folder that only this user can read or change, and a secret in it.

Does not know: what else lies in it, who meets there.
"""

import os
import secrets
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from stalegrid.errors import ConfigError

PREFIX = "stalegrid-"
"""Of the names of private folders."""

_SECRET = "secret"
_SIZE = 32  # bytes of a secret


def place() -> Path:
    """Return the folder for files of a while, such as TMPDIR names it, without links."""
    return Path(tempfile.gettempdir()).resolve()


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for this user alone, and remove it in the end.

    Raises:
        ConfigError: others could put another one in its place, or there is no room for one.
    """
    try:
        # Its mode is 0700.
        made = tempfile.TemporaryDirectory(prefix=PREFIX, dir=place(), ignore_cleanup_errors=True)
    except OSError as problem:
        raise ConfigError(f"a run needs a folder for its files ({problem}); let TMPDIR name a place for one") from None
    with made as name:
        folder = Path(name)
        _check_folder(folder)
        yield folder


def make_secret(folder: Path) -> None:
    """Draw a secret and write it where only this user can read it."""
    with open(os.open(folder / _SECRET, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(_SIZE))


def read_secret(folder: Path) -> bytes:
    """Read the secret in a private folder.

    Raises:
        OSError: it cannot be read.
        ConfigError: others can read or replace it, or it is none.
    """
    _check_folder(folder)
    path = folder / _SECRET
    # Whatever else is there is not waited for.
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        found = os.fstat(file.fileno())
        _check(path, found, 0o600)
        if not stat.S_ISREG(found.st_mode) or found.st_size != _SIZE:
            raise ConfigError(f"this is no secret of a run (path: {path}, bytes: {found.st_size}, due: {_SIZE})")
        return file.read(_SIZE)


def _check_folder(folder: Path) -> None:
    """Refuse a folder that is not for this user alone, or that others could replace, or one above it."""
    _check(folder, folder.lstat(), 0o700)
    for above in folder.parents:
        found = above.stat()
        # In a folder with the sticky bit, as /tmp is, others can make files and not rename ours.
        writable = found.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not found.st_mode & stat.S_ISVTX
        if writable or found.st_uid not in (0, os.geteuid()):
            raise ConfigError(
                f"others could replace the files of a run (folder: {above}, mode: {stat.S_IMODE(found.st_mode):o}, "
                f"owner: {found.st_uid}), since they may rename what is in it; let TMPDIR name another place"
            )


def _check(path: Path, found: os.stat_result, most: int) -> None:
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & ~most:
        raise ConfigError(
            f"a file of a run is not for this user alone (path: {path}, mode: {stat.S_IMODE(found.st_mode):o}, owner: "
            f"{found.st_uid}); let TMPDIR name a place on a file system that keeps modes and owners"
        )
