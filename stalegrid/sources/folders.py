"""Values in files: one of safetensors, or several with an index, as Hugging Face lays them out.

Does not know: stages, processes.

Only headers are read until a tensor is asked for, and then that tensor alone.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stalegrid.errors import ConfigError, DataError
from stalegrid.sources.drawn import Drawn

FILE = "model.safetensors"
INDEX = "model.safetensors.index.json"

SAMPLES, BLOCK = 16, 4096
"""What is compared of a file between processes: so many pieces of so many bytes."""

Shape = tuple[int, ...]


class Files:
    """Values of what a model saves, from files; of the rest, such as buffers that are not saved, those of its making.

    Args:
        path: of a folder, or of one file.
        names: all that tensors of the model are called that are saved, by the first name of each.
        drawn: values of the rest.
    """

    def __init__(self, path: Path, names: Mapping[str, tuple[str, ...]], drawn: Drawn) -> None:
        self._path = path
        self._names = names
        self._drawn = drawn

    def check(self, shapes: Mapping[str, Shape]) -> None:
        """Hold the headers of the files against the model.

        Args:
            shapes: of the model's tensors that are to be given values, by name.

        Raises:
            ConfigError: a tensor is missing, or has another shape; or there is one that the model has not.
            DataError: a file is missing or broken.
        """
        rest = []
        for name, shape in shapes.items():
            if name not in self._names:
                rest.append(name)
            elif (found := self._found(name)) != shape:
                raise ConfigError(
                    f"a tensor has another shape in the files than in the model (name: {name}, file: "
                    f"{self._where[self._key(name)]}, shape: {found}, in the model: {shape}); name the files of this "
                    "model, or build it as they have it"
                )
        known = {name for own in self._names.values() for name in own}
        if unknown := sorted(self._where.keys() - known):
            raise ConfigError(
                f"the files have a tensor that the model has not (name: {unknown[0]}, and {len(unknown) - 1} more, "
                f"weights: {self._path}): they are of another model; build it as they have it"
            )
        self._drawn.check(rest)

    def value(self, name: str) -> Tensor:
        """Return a tensor in memory, in the type of its file.

        Raises:
            DataError: the file is broken.
        """
        if name not in self._names:
            return self._drawn.value(name)
        key = self._key(name)
        file = self._where[key]
        try:
            with safe_open(file, framework="pt") as opened:
                found: Tensor = opened.get_tensor(key)
        except (SafetensorError, OSError) as problem:
            raise _broken(file, problem) from problem
        return found

    def text(self) -> str:
        """Return what processes compare: headers, sizes, and pieces of every file."""
        digest = hashlib.sha256(repr(sorted((key, file.name) for key, file in self._where.items())).encode())
        for file in sorted(set(self._where.values())):
            size = file.stat().st_size
            with file.open("rb") as opened:
                for i in range(SAMPLES):
                    opened.seek(i * max(0, size - BLOCK) // (SAMPLES - 1))
                    digest.update(opened.read(BLOCK))
        return f"{digest.hexdigest()} {self._drawn.text()}"

    def _key(self, name: str) -> str:
        """Return what the files call a tensor, which several names of the model may mean."""
        found = next((one for one in self._names[name] if one in self._where), None)
        if found is None:
            raise ConfigError(
                f"the files lack a tensor of the model (name: {name}, weights: {self._path}, tensors there: "
                f"{len(self._where)}); name the files of this model, with the names of its state_dict()"
            )
        return found

    def _found(self, name: str) -> Shape:
        key = self._key(name)
        file = self._where[key]
        try:
            with safe_open(file, framework="pt") as opened:
                return tuple(opened.get_slice(key).get_shape())
        except (SafetensorError, OSError) as problem:
            raise _broken(file, problem) from problem

    @cached_property
    def _where(self) -> dict[str, Path]:
        """The file of every tensor."""
        if self._path.is_file():
            return dict.fromkeys(_keys(self._path), self._path)
        if (index := self._path / INDEX).is_file():
            return _indexed(index)
        if (file := self._path / FILE).is_file():
            return dict.fromkeys(_keys(file), file)
        raise DataError(
            f"there is no model in the folder (weights: {self._path}); it needs {FILE}, or {INDEX} and the files that "
            "it names"
        )


def _keys(file: Path) -> list[str]:
    try:
        with safe_open(file, framework="pt") as opened:
            return list(opened.keys())
    except (SafetensorError, OSError) as problem:
        raise _broken(file, problem) from problem


def _indexed(index: Path) -> dict[str, Path]:
    """Return the file of every tensor, as an index says, and hold it against the files."""
    try:
        written: Any = json.loads(index.read_text())
        where = {str(key): index.parent / Path(file).name for key, file in written["weight_map"].items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as problem:
        raise DataError(
            f"the index cannot be read (file: {index}): {problem}; write or copy the folder anew"
        ) from problem
    for file in sorted(set(where.values())):
        lost = sorted({key for key, own in where.items() if own == file} - set(_keys(file)))
        if lost:
            raise DataError(
                f"a file lacks a tensor that the index says it has (file: {file}, name: {lost[0]}); write or copy the "
                "folder anew"
            )
    return where


def _broken(file: Path, problem: Exception) -> DataError:
    return DataError(f"a file of the model is missing or broken (file: {file}): {problem}; write or copy it anew")
