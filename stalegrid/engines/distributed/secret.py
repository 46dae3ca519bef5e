"""Where the secret of processes comes from that somebody else has started.

Does not know: how it is proved, what it protects.
"""

import os
import re
from contextlib import ExitStack
from pathlib import Path

from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.private import PREFIX, make_secret, place, private_folder, read_secret
from stalegrid.errors import ConfigError

SECRET, SECRET_FILE = "STALEGRID_SECRET", "STALEGRID_SECRET_FILE"
"""The secret of a run, or a file with it."""

SHORTEST = 16
"""Bytes of a secret at least."""

_NAME = 64  # bytes of a folder's name at most


def common_secret(patience: float) -> bytes:
    """Return what all processes of the run know, and nobody else.

    Where none was given, they are of one user on one host if all can read a file that only that user can.
    """
    given: list[bytes] = []

    def asked() -> bytes:
        given.extend(given_secret())
        return b"1" if given else b"0"

    have = talk.gather(asked, patience, 1)
    if b"0" not in have:
        return given[0]
    if b"1" in have:
        lacking = [rank for rank, one in enumerate(have) if one == b"0"]
        raise ConfigError(f"processes lack the secret of this run (processes: {lacking}); set {SECRET} for all")
    with ExitStack() as stack:

        def made() -> bytes:
            folder = stack.enter_context(private_folder())
            make_secret(folder)
            return folder.name.encode()

        name = talk.spread(made, patience, _NAME).decode(errors="replace")
        found = _read(name)
        read = talk.gather(lambda: b"0" if found is None else b"1", patience, 1)
    if found is None or b"0" in read:
        others = [rank for rank, one in enumerate(read) if one == b"0"]
        raise ConfigError(
            "processes of other hosts or users, or with another TMPDIR, have to prove that they are of this run "
            f"(processes: {others}); set {SECRET} to the same long random text for all, or {SECRET_FILE} to a file "
            "with it; see docs/security.md"
        )
    return found


def given_secret() -> list[bytes]:
    """Return the secret that this process was given, if any.

    Raises:
        ConfigError: it cannot be used.
    """
    if SECRET in os.environ and SECRET_FILE in os.environ:
        raise ConfigError(f"two secrets are given ({SECRET_FILE}: {os.environ[SECRET_FILE]}, and {SECRET}); unset one")
    if SECRET_FILE in os.environ:
        try:
            given = Path(os.environ[SECRET_FILE]).read_bytes().strip()
        except OSError as problem:
            raise ConfigError(
                f"the file with the secret cannot be read ({SECRET_FILE}: {os.environ[SECRET_FILE]}): "
                f"{problem.strerror}"
            ) from problem
    elif SECRET in os.environ:
        given = os.fsencode(os.environ[SECRET])
    else:
        return []
    if len(given) < SHORTEST:
        raise ConfigError(
            f"a secret that short can be guessed (bytes: {len(given)}, at least: {SHORTEST}); make one with openssl "
            "rand -hex 32"
        )
    return [given]


def _read(name: str) -> bytes | None:
    """Read the secret in a folder of which another process, which has proved nothing yet, says the name alone."""
    # No path: it could name a file whose content is to be guessed, or a pipe that never ends.
    if not re.fullmatch(rf"{PREFIX}\w+", name):
        return None
    try:
        return read_secret(place() / name)
    except (OSError, ConfigError):
        return None
