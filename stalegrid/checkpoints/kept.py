"""Checkpoints read back, by a process that trusts no file.

Does not know: agents, what is in a state.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stalegrid.checkpoints.layout import FOLDER, MANIFEST, SCHEMA, SEAL, digest, name_of_part, seal, version_of
from stalegrid.errors import DataError
from stalegrid.objects import joined
from stalegrid.programs import OBSERVER
from stalegrid.written import COUNT, TEXT, checked, exists, is_file, is_folder, read_json

_SHAPE = {
    "schema": COUNT,
    "version": COUNT,
    "parts": [TEXT],
    "files": {TEXT: {"bytes": COUNT, "digest": TEXT}},
}


class NewerSchema(DataError):
    """A checkpoint was written by a version that is newer than this one."""


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint that has a manifest.

    Args:
        folder: of its files.
    """

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What it says of itself.

        Raises:
            DataError: it cannot be read, or is of a newer schema.
        """
        path = self.folder / MANIFEST
        found: dict[str, Any] = read_json(path, {"schema": COUNT})
        if found["schema"] <= SCHEMA and seal(found) != found.get(SEAL):
            raise DataError(f"the file is not the one that was written (file: {path}); {_REMEDY}")
        if found["schema"] > SCHEMA:
            raise NewerSchema(
                f"the checkpoint was written by a newer stalegrid (file: {path}, schema: {found['schema']}, read here: "
                f"up to {SCHEMA}, stalegrid: {found.get('stalegrid')}); go on with that version"
            )
        return dict(checked(found, _SHAPE, path))

    @property
    def version(self) -> int:
        """Updates that every unit has applied."""
        return int(self.manifest["version"])

    @property
    def run(self) -> Path:
        """The folder of the run that wrote it."""
        return self.folder.parent.parent

    @property
    def end(self) -> int | None:
        """The version whose verdict was to end the run; None for none.

        Raises:
            DataError: the observer's part cannot be read.
        """
        found = joined(*self.part(name_of_part(OBSERVER)))
        return None if found["end"] is None else int(found["end"])

    def check(self) -> None:
        """Check that every file is the one that was written.

        Raises:
            DataError: one is not.
        """
        for name in self.manifest["files"]:
            self._checked(name)

    def part(self, name: str) -> tuple[Any, dict[str, Tensor]]:
        """Return plain values and tensors of a part.

        Raises:
            DataError: they cannot be read, or are not those that were written.
        """
        plain = read_json(self._checked(f"{name}.json"), {})
        path = self._checked(f"{name}.safetensors")
        try:
            return plain, load_file(path)
        except (SafetensorError, OSError) as problem:
            raise DataError(f"the file is damaged (file: {path}): {problem}; {_REMEDY}") from problem

    def _checked(self, name: str) -> Path:
        path, known = self.folder / name, self.manifest["files"].get(name)
        if known is None or not is_file(path):
            raise DataError(f"the checkpoint lacks a file (file: {path}); {_REMEDY}")
        try:
            found = {"bytes": path.stat().st_size, "digest": digest(path)}
        except OSError as problem:
            raise DataError(f"the file cannot be read (file: {path}): {problem.strerror}; {_REMEDY}") from problem
        if found != known:
            size = found["bytes"]
            raise DataError(f"the file is not the one that was written (file: {path}, bytes: {size}); {_REMEDY}")
        return path


_REMEDY = "this checkpoint is of no use"


def wholes(checkpoints: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder that have a manifest, newest first."""
    if not is_folder(checkpoints):
        return []
    numbered = {version: path for path in checkpoints.iterdir() if (version := version_of(path)) is not None}
    found = [numbered[version] for version in sorted(numbered, reverse=True)]
    return [Checkpoint(folder) for folder in found if is_file(folder / MANIFEST)]


def newest(run: Path, told: Callable[[str], object] = lambda line: None) -> Checkpoint | None:
    """Return the newest checkpoint of a run that is whole to the byte, or None.

    Args:
        run: its folder.
        told: takes what is wrong with one that is passed over.

    Raises:
        DataError: one was written by a newer version, and it and later ones would be lost.
    """
    for checkpoint in wholes(run / FOLDER):
        try:
            checkpoint.check()
        except NewerSchema:
            raise
        except DataError as problem:
            told(f"a checkpoint is passed over: {problem}")
            continue
        return checkpoint
    return None


def run_of(path: Path) -> Path:
    """Return the folder of a run, given that, or the folder of one of its checkpoints or of all of them.

    Raises:
        DataError: there is none.
    """
    if is_file(path):
        raise DataError(f"this is a file (path: {path}); name the folder of a run, or of one of its checkpoints")
    if not exists(path):
        raise DataError(f"there is no such folder (path: {path}); name that of a run, or of one of its checkpoints")
    if (path / FOLDER).exists():
        return path
    within = path.resolve()
    if within.name == FOLDER:
        return path / ".." if path.name != FOLDER else path.parent
    if within.parent.name == FOLDER:
        return within.parent.parent
    return path


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint, given its folder or that of a run, of which it is the newest.

    Raises:
        DataError: there is none, or it is damaged.
    """
    run = run_of(path)
    found = wholes(run / FOLDER)
    if path.resolve() not in (run.resolve(), (run / FOLDER).resolve()):
        named = run / FOLDER / path.resolve().name
        found = [Checkpoint(named), *(other for other in found if other.folder.name < named.name)]
    elif not found:
        raise DataError(
            f"there is no whole checkpoint (folder: {path}); name the folder of a run that has written one "
            "(checkpoint=N), or begin anew"
        )
    try:
        found[0].check()
    except NewerSchema:
        raise
    except DataError as problem:
        raise DataError(f"{problem}; {_older(found[1:])}") from problem
    return found[0]


def _older(checkpoints: Sequence[Checkpoint]) -> str:
    """Say which of several checkpoints, newest first, is whole."""
    for checkpoint in checkpoints:
        try:
            checkpoint.check()
        except DataError:
            continue
        return f"an older one is whole, so go on from that: {checkpoint.folder}"
    return "no older one is whole, so begin anew"
