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

SECRET = "secret"
"""The file with the secret of a run."""

LONGEST = 4096
"""Bytes of a secret at most."""


@contextmanager
def private_folder() -> Iterator[Path]:
    """Make a folder for this user alone, and remove it in the end.

    Raises:
        ConfigError: others could put another one in its place, or there is no room for one.
    """
    try:
        made = tempfile.TemporaryDirectory(prefix="stalegrid-", ignore_cleanup_errors=True)  # its mode is 0700
    except OSError as problem:
        raise ConfigError(f"a run needs a folder for its files ({problem}); let TMPDIR name a place for one") from None
    with made as name:
        folder = Path(name)
        _check(folder, 0o700)
        above = folder.parent.stat()
        if above.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not above.st_mode & stat.S_ISVTX:
            raise ConfigError(
                f"others could replace the files of a run (folder: {folder.parent}), since everybody may rename what "
                "is in it; let TMPDIR name another"
            )
        yield folder


def make_secret(folder: Path) -> Path:
    """Draw a secret and write it where only this user can read it."""
    path = folder / SECRET
    with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    return path


def read_secret(path: Path) -> bytes:
    """Read the secret in a private folder.

    Raises:
        OSError: it cannot be read.
        ConfigError: others can read or replace it.
    """
    with open(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
        _check(path.parent, 0o700)
        _check(path, 0o600)
        return file.read(LONGEST)


def _check(path: Path, most: int) -> None:
    found = path.lstat()
    if stat.S_ISLNK(found.st_mode) or found.st_uid != os.geteuid() or stat.S_IMODE(found.st_mode) & ~most:
        raise ConfigError(
            f"a file of a run is not for this user alone (path: {path}, mode: {stat.S_IMODE(found.st_mode):o}, owner: "
            f"{found.st_uid}); let TMPDIR name a place on a file system that keeps modes and owners"
        )
