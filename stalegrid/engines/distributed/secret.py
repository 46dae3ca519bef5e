"""Where the secret of processes comes from that somebody else has started.

Does not know: how it is proved, what it protects.
"""

import os
from contextlib import ExitStack
from pathlib import Path

from stalegrid.engines.distributed import talk
from stalegrid.engines.distributed.private import LONGEST, make_secret, private_folder, read_secret
from stalegrid.errors import ConfigError

SECRET, SECRET_FILE = "STALEGRID_SECRET", "STALEGRID_SECRET_FILE"
"""The secret of a run, or a file with it."""

SHORTEST = 16
"""Bytes of a secret at least."""


def common_secret(patience: float) -> bytes:
    """Return what all processes of the run know, and nobody else.

    Where none was given, they are of one user on one host if all can read a file that only that user can.
    """
    given = _given()
    have = talk.gather(lambda: b"0" if given is None else b"1", patience, 1)
    if given is not None and b"0" not in have:
        return given
    if b"1" in have:
        lacking = [rank for rank, one in enumerate(have) if one == b"0"]
        raise ConfigError(f"processes lack the secret of this run (processes: {lacking}); set {SECRET} for all")
    with ExitStack() as stack:

        def made() -> bytes:
            return str(make_secret(stack.enter_context(private_folder()))).encode()

        path = Path(talk.spread(made, patience, LONGEST).decode(errors="replace"))
        found = _read(path)
        read = talk.gather(lambda: b"0" if found is None else b"1", patience, 1)
    if found is None or b"0" in read:
        others = [rank for rank, one in enumerate(read) if one == b"0"]
        raise ConfigError(
            f"processes of other hosts, or users, have to prove that they are of this run (processes: {others}); set "
            f"{SECRET} to the same long random text for all, or {SECRET_FILE} to a file with it; see docs/security.md"
        )
    return found


def _given() -> bytes | None:
    if SECRET_FILE in os.environ and SECRET not in os.environ:
        try:
            given = Path(os.environ[SECRET_FILE]).read_bytes().strip()
        except OSError as problem:
            raise ConfigError(
                f"the file with the secret cannot be read ({SECRET_FILE}: {os.environ[SECRET_FILE]}): "
                f"{problem.strerror}"
            ) from problem
    elif SECRET in os.environ:
        given = os.environ[SECRET].encode()
    else:
        return None
    if len(given) < SHORTEST:
        raise ConfigError(
            f"a secret that short can be guessed (bytes: {len(given)}, at least: {SHORTEST}); make one with openssl "
            "rand -hex 32"
        )
    return given


def _read(path: Path) -> bytes | None:
    try:
        return read_secret(path)
    except (OSError, ConfigError, ValueError):
        return None
