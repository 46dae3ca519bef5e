"""Where agents put their state while training goes on, and take it back from.

Does not know: agents, when anything is put, what is in a state.

What is put is copied at once and written by a thread.  While that still writes one version, a state of the next is not
taken: so there is never more than one copy, and a disk that is too slow slows the run.  Who writes the last part of a
version adds the manifest, and then removes what is older than need be; nothing older is touched before.
"""

import shutil
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from stalegrid.checkpoints.kept import Checkpoint, wholes
from stalegrid.checkpoints.layout import MANIFEST, SCHEMA, SEAL, digest, folder_of, name_of_part, seal, version_of
from stalegrid.errors import OutputError
from stalegrid.objects import State, joined, parted
from stalegrid.programs import Unit
from stalegrid.written import replace, to_json

_Part = tuple[Unit, int, Any, dict[str, Tensor]]


class Shelf:
    """The checkpoints of a run, as one of its processes sees them.

    Args:
        folder: that they lie in, which all processes share.
        agents: of the whole run.
        facts: what the manifest says besides.
        keep: how many whole ones stay.
        say: takes what is told of a failure.
        source: that the run goes on from; None for none.
        device: that agents of this process compute on.
    """

    def __init__(
        self,
        folder: Path,
        agents: Sequence[Unit],
        facts: Mapping[str, Any],
        keep: int,
        say: Callable[[str], object],
        source: Checkpoint | None = None,
        device: torch.device | None = None,
    ) -> None:
        self._folder = folder
        self._names = [name_of_part(unit) for unit in agents]
        self._facts = dict(facts)
        self._keep = keep
        self._say = say
        self._source = source
        self._device = device
        self._version: int | None = None
        self._failed: set[int] = set()
        self._thread: threading.Thread | None = None

    def put(self, unit: Unit, version: int, state: State) -> None:
        """Save the state of an agent at a version.

        Args:
            unit: whose.
            version: of the checkpoint.
            state: a tree of plain values and tensors, copied before this returns.
        """
        if version != self._version:
            self.flush()
            self._version = version
        part = (unit, version, *parted(state, self._device))
        before = self._thread
        # One after another: each waits for the one before.
        self._thread = threading.Thread(target=self._write, args=(part, before), name="checkpoint")
        self._thread.start()

    def take(self, unit: Unit) -> Any:
        """Return the state of an agent that the run goes on from.

        Raises:
            DataError: it cannot be read, or is damaged.
        """
        assert self._source is not None
        plain, tensors = self._source.part(name_of_part(unit))
        return joined(plain, tensors, self._device)

    def flush(self) -> None:
        """Wait until all that was put is written, or has failed."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _write(self, part: _Part, before: threading.Thread | None) -> None:
        if before is not None:
            before.join()
        unit, version, plain, tensors = part
        if version in self._failed:
            return
        try:
            folder = folder_of(self._folder, version)
            folder.mkdir(parents=True, exist_ok=True)
            _write_part(folder, name_of_part(unit), plain, tensors)
            self._finish(folder, version)
        except (OSError, OutputError) as problem:
            self._failed.add(version)
            self._say(f"the checkpoint of version {version} cannot be written, and training goes on: {problem}")

    def _finish(self, folder: Path, version: int) -> None:
        files = [folder / f"{name}{end}" for name in self._names for end in (".json", ".safetensors")]
        if not all(file.exists() for file in files):
            return
        manifest = {
            "schema": SCHEMA,
            "version": version,
            "parts": self._names,
            "files": {file.name: {"bytes": file.stat().st_size, "digest": digest(file)} for file in files},
            **self._facts,
        }
        manifest[SEAL] = seal(manifest)
        replace(folder / MANIFEST, lambda path: path.write_text(to_json(manifest, indent=2) + "\n"), synced=True)
        self._tidy(version)

    def _tidy(self, version: int) -> None:
        kept = [checkpoint.folder for checkpoint in wholes(self._folder)][: self._keep]
        for old in self._folder.iterdir():
            number = version_of(old)
            if number is not None and number < version and old not in kept:
                shutil.rmtree(old, ignore_errors=True)


def _write_part(folder: Path, name: str, plain: Any, tensors: dict[str, Tensor]) -> None:
    replace(folder / f"{name}.safetensors", lambda path: save_file(tensors, path), synced=True)
    replace(folder / f"{name}.json", lambda path: path.write_text(to_json(plain)), synced=True)
