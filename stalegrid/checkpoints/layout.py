"""How a checkpoint lies on disk.

Does not know: who writes or reads it.

::

    RUN/checkpoints/000000120/            version 120
        group-0-stage-1.json              plain values of a part, and which file has its tensors
        group-0-stage-1.safetensors
        ...
        manifest.json                     schema, versions of libraries, settings, checksums; written last
"""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stalegrid.programs import OBSERVER, Unit
from stalegrid.written import to_json

FOLDER = "checkpoints"
MANIFEST = "manifest.json"
SCHEMA = 1
"""Of all files of a checkpoint; raised when an older reader would misread a newer one."""

SEAL = "seal"
"""What a manifest calls the checksum of all that it says besides."""

_DIGITS = 9
_PART = re.compile(r"group-(\d+)-stage-(\d+)")
_PIECE = 1 << 20  # bytes that are read at once


def name_of_part(unit: Unit) -> str:
    """Return the name of the files of an agent's part, without their ends."""
    if unit == OBSERVER:
        return "observer"
    return f"group-{unit.group}-stage-{unit.stage}" if unit.group >= 0 else f"server-{unit.stage}"


def unit_of_part(name: str) -> Unit | None:
    """Return the unit of a grid whose part has a name; None for that of another agent."""
    found = _PART.fullmatch(name)
    return None if found is None else Unit(int(found[1]), int(found[2]))


def folder_of(checkpoints: Path, version: int) -> Path:
    """Return the folder of a version."""
    return checkpoints / f"{version:0{_DIGITS}d}"


def version_of(folder: Path) -> int | None:
    """Return the version of a folder; None if it is none of a checkpoint."""
    return int(folder.name) if folder.name.isascii() and folder.name.isdigit() else None


def digest(path: Path) -> str:
    """Return a checksum of a file."""
    found = hashlib.blake2b(digest_size=16)
    with path.open("rb") as file:
        while piece := file.read(_PIECE):
            found.update(piece)
    return found.hexdigest()


def seal(manifest: Mapping[str, Any]) -> str:
    """Return a checksum of what a manifest says, but for its own."""
    said = {name: value for name, value in manifest.items() if name != SEAL}
    return hashlib.blake2b(to_json(said, sort_keys=True).encode(), digest_size=16).hexdigest()
