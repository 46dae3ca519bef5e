"""Files read and written whole, by a process that trusts neither the disk nor who else may write to a folder.

Does not know: what a file says.
"""

import json
import math
import os
import secrets
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from safetensors import SafetensorError

from stalegrid.errors import DataError, OutputError

MEBIBYTE = 1 << 20


def replace(path: Path, write: Callable[[Path], object], *, synced: bool = False) -> None:
    """Write a file so that it is whole at any moment: beside it first, under a name nobody can guess.

    Args:
        path: of the file, which may exist; a link in its place is replaced, not followed.
        write: writes to the path that it is given.
        synced: whether it is on the disk when this returns, for what must outlive the machine.

    Raises:
        OutputError: it cannot be written; what was there before stays.
    """
    # Beside it, since a replacement is one step only within a file system.
    part = _beside(path.parent)
    with writing(path):
        try:
            _write(part, write)
            if synced:
                _sync(part)
            os.replace(part, path)
            if synced:
                _sync(path.parent)
        # Interrupted too: nobody else knows the name.
        except BaseException:
            part.unlink(missing_ok=True)
            raise


def replace_all(folder: Path, writers: Mapping[str, Callable[[Path], object]]) -> None:
    """Write files of a folder so that they change as one, for whoever calls :func:`settle` after an end at any moment.

    Whoever does not, finds them change in their order: where the last one is new all are.

    Args:
        folder: of the files, which may exist.
        writers: of each, by its name; writes to the path that it is given.

    Raises:
        OutputError: one cannot be written, and all of them stay as they were; or not put into its place.
    """
    settle(folder)
    part = _beside(folder)
    try:
        with writing(folder):
            part.mkdir()
        for number, (name, write) in enumerate(writers.items()):
            with writing(folder / name):
                _write(part / f"{number:03}-{name}", write)
        with writing(folder):
            os.replace(part, folder / _NEXT)
    except BaseException:
        shutil.rmtree(part, ignore_errors=True)
        raise
    settle(folder)


def settle(folder: Path) -> None:
    """Put into their places files of :func:`replace_all` whose writer came to its end in between; nobody writes now.

    Raises:
        OutputError: one cannot be put there, or somebody has put a link in the way.
    """
    ready = folder / _NEXT
    if ready.is_symlink():
        raise OutputError(f"a link is where a run keeps what it is about to write (link: {ready}); remove it")
    if not is_folder(ready):
        return
    for path in sorted(ready.iterdir()):
        place = folder / path.name.partition("-")[2]
        with writing(place):
            os.replace(path, place)
    with writing(ready):
        ready.rmdir()


def sweep(folder: Path) -> None:
    """Remove what writers that were killed have left beside files; nobody writes now.

    Raises:
        OutputError: something cannot be removed.
    """
    with writing(folder):
        for path in folder.glob(f"{_PART}*"):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()


_NEXT = ".next"  # once it is there, it has all of the files
_PART = ".part-"


def _beside(folder: Path) -> Path:
    return folder / f"{_PART}{secrets.token_hex(8)}"


def _write(path: Path, write: Callable[[Path], object]) -> None:
    # A name that somebody else has made, a link above all, is an error.
    path.touch(exist_ok=False)
    mode = path.stat().st_mode  # as the mask has it; some who write make a file of their own
    write(path)
    path.chmod(mode)


def _sync(path: Path) -> None:
    """Let a file, or the names in a folder, get to the disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def write_text(path: Path, text: str) -> None:
    """Write a text file; see :func:`replace`."""
    replace(path, lambda part: part.write_text(text, encoding="utf-8"))


def open_new(path: Path) -> TextIO:
    """Open a text file that must not exist yet, line by line.

    Raises:
        OutputError: it cannot be made.
    """
    with writing(path):
        # Line by line, for those who read a run that goes on, or what is left of one that was killed.
        return path.open("x", encoding="utf-8", buffering=1)


def open_again(path: Path) -> TextIO:
    """Open a text file that exists, to add lines to it.

    Raises:
        OutputError: it cannot be opened.
    """
    with writing(path):
        if not path.exists():
            raise FileNotFoundError(2, "it is not there")
        return path.open("a", encoding="utf-8", buffering=1)


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Say in a line that a file cannot be written.

    Raises:
        OutputError: what is done within raised an error of input or output.
    """
    try:
        yield
    except (OSError, SafetensorError) as problem:
        reason = problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
        raise OutputError(
            f"the file cannot be written (file: {path}): {reason}; make room for it, or name another folder"
        ) from problem


def to_json(content: Any, **options: Any) -> str:
    """Return strict JSON, in which numbers that are infinite or none are null."""
    return json.dumps(_strict(content), allow_nan=False, **options)


def _strict(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _strict(entry) for key, entry in value.items()}
    return [_strict(entry) for entry in value] if isinstance(value, list | tuple) else value


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file that is no larger than it can sensibly be.

    Args:
        path: of the file.
        most: bytes.

    Raises:
        DataError: it cannot be read, or is larger.
    """
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            # One byte more than allowed, for a file that grows meanwhile, or that says it has none (a pipe).
            content = file.read(most + 1) if size <= most else b""
    except (OSError, ValueError) as problem:  # ValueError: a path with a null character
        raise DataError(f"the file cannot be read (file: {path}): {_reason(problem)}") from problem
    if size > most or len(content) > most:
        raise DataError(f"the file is larger than makes sense here (file: {path}, bytes: {size}, at most: {most})")
    return content


def read_text(path: Path, most: int) -> str:
    """Read a file of UTF-8; arguments and errors as for :func:`read_bytes`."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError as problem:
        raise DataError(f"the file is not text in UTF-8 (file: {path}): {problem}") from problem


def exists(path: Path) -> bool:
    """Return whether there is something at a path; errors as for :func:`is_file`."""
    return _asked(path, Path.exists)


def is_folder(path: Path) -> bool:
    """Return whether there is a folder at a path; errors as for :func:`is_file`."""
    return _asked(path, Path.is_dir)


def is_file(path: Path) -> bool:
    """Return whether there is a file at a path.

    Raises:
        DataError: that cannot be known, as where the path is too long or leads through a closed folder.
    """
    return _asked(path, Path.is_file)


def _asked(path: Path, question: Callable[[Path], bool]) -> bool:
    try:
        return question(path)
    except OSError as problem:
        raise DataError(f"the path cannot be used (path: {path}): {_reason(problem)}") from problem


def _reason(problem: Exception) -> object:
    return problem.strerror if isinstance(problem, OSError) and problem.strerror else problem
