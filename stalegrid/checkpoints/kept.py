"""Checkpoints read back, by a process that trusts no file.

Does not know: agents, what is in a state.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from stalegrid.checkpoints.layout import FOLDER, MANIFEST, SCHEMA, digest, name_of_part, version_of
from stalegrid.errors import ConfigError, DataError
from stalegrid.programs import OBSERVER
from stalegrid.written import COUNT, TEXT, is_file, is_folder, joined, read_json

_SHAPE = {
    "schema": COUNT,
    "version": COUNT,
    "parts": [TEXT],
    "files": {TEXT: {"bytes": COUNT, "digest": TEXT}},
}


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
        if found["schema"] > SCHEMA:
            raise DataError(
                f"the checkpoint was written by a newer stalegrid (file: {path}, schema: {found['schema']}, read here: "
                f"up to {SCHEMA}, stalegrid: {found.get('stalegrid')}); install that version"
            )
        return dict(read_json(path, _SHAPE))

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


_REMEDY = "remove this checkpoint's folder, and go on from the one before it"


def wholes(checkpoints: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder that have a manifest, newest first."""
    if not is_folder(checkpoints):
        return []
    numbered = {version: path for path in checkpoints.iterdir() if (version := version_of(path)) is not None}
    found = [numbered[version] for version in sorted(numbered, reverse=True)]
    return [Checkpoint(folder) for folder in found if is_file(folder / MANIFEST)]


def newest(run: Path) -> Checkpoint | None:
    """Return the newest checkpoint of a run that is whole to the byte, or None."""
    for checkpoint in wholes(run / FOLDER):
        try:
            checkpoint.check()
        except DataError:
            continue
        return checkpoint
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """Return a checkpoint, given its folder or that of a run, of which it is the newest.

    Raises:
        DataError: there is none, or it is damaged.
    """
    if is_file(path / MANIFEST):
        found = Checkpoint(path)
    else:
        candidates = wholes(path / FOLDER)
        if not candidates:
            raise DataError(f"there is no whole checkpoint (folder: {path}); name the folder of a run that wrote one")
        found = candidates[0]
    found.check()
    return found


def check_settings(checkpoint: Checkpoint, settings: dict[str, Any]) -> None:
    """Check that a run that goes on is asked for what it was at its beginning, but for where it happens.

    Args:
        checkpoint: that it goes on from.
        settings: of the run, as plain values.

    Raises:
        ConfigError: something is not the same, so that it would not be the same run.
    """
    both = checkpoint.manifest["settings"], settings
    then, now = (_flat({name: group for name, group in one.items() if name not in FREE}) for one in both)
    unlike = [name for name in dict.fromkeys([*then, *now]) if then.get(name) != now.get(name)]
    if unlike:
        shown = "; ".join(f"{name}: {now.get(name)}, then: {then.get(name)}" for name in unlike[:3])
        raise ConfigError(
            f"a run goes on to the bit only as it began ({shown}, checkpoint: {checkpoint.folder}); ask for the same, "
            "or go on in another shape, in a folder of its own (reshape)"
        )


FREE = ("engine", "devices", "checkpoint")
"""Groups of settings that decide where a run happens and when it is saved, and no number."""


def _flat(settings: dict[str, Any], before: str = "") -> dict[str, Any]:
    """Return plain settings by their whole names, as JSON keeps them."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, dict):
            found |= _flat(value, f"{before}{name}.")
        else:
            found[before + name] = list(value) if isinstance(value, tuple) else value
    return found
