"""A model in files that its stages write, each what it has, and an index of them, as Hugging Face lays them out.

Does not know: what stages are otherwise, who measures, when.

The names of files say the version, and the index is replaced when all files of one are there: so it names a whole model
at any moment.  Where hosts share no folder, each has the files of its own stages, and the first one the index.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from safetensors.torch import save_file
from torch import Tensor

from stalegrid.written import replace, write_text

INDEX = "model.safetensors.index.json"
UNSAVED_INDEX = "unsaved.safetensors.index.json"

LARGEST = 1 << 27
"""Bytes of a file from which on another one is begun: a file is made in memory before it is written."""


class Item(NamedTuple):
    """One tensor of a model."""

    key: str
    """In files."""
    name: str
    """In the model."""
    nbytes: int


@dataclass(frozen=True)
class Saved:
    """What of a model a stage saves.

    Args:
        state: of its state dict.
        rest: that a state dict leaves out.
    """

    state: tuple[Item, ...]
    rest: tuple[Item, ...] = ()

    def files(self, version: int, stage: int) -> Iterator[tuple[str, tuple[Item, ...]]]:
        """Yield the names of its files, each with what it holds.

        Args:
            version: of the weights.
            stage: that saves.
        """
        for kind, items in (("model", self.state), ("unsaved", self.rest)):
            for number, part in enumerate(_parted(items)):
                yield f"{kind}-{version}-stage-{stage}-{number}.safetensors", part


def save_part(folder: Path, version: int, stage: int, saved: Saved, tensors: Mapping[str, Tensor]) -> None:
    """Write what a stage has of a model.

    Args:
        folder: of the run.
        version: of the weights.
        stage: that saves.
        saved: what it saves.
        tensors: by their names in the model.

    Raises:
        OutputError: a file cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)  # on another host nobody else has made it
    for name, items in saved.files(version, stage):
        # A copy of what is tied: safetensors refuses tensors that share memory, as the parameters of a stage do.
        content = {item.key: tensors[item.name].detach().cpu().clone().contiguous() for item in items}
        replace(folder / name, lambda part, content=content: save_file(content, part, {"format": "pt"}))  # type: ignore[misc]


def index_parts(folder: Path, version: int, parts: Sequence[Saved]) -> None:
    """Say which file has which tensor, once all are written, and remove the files of versions before.

    Args:
        folder: of the run.
        version: of the weights.
        parts: what each stage has saved.

    Raises:
        OutputError: a file cannot be written.
    """
    where: dict[str, dict[str, str]] = {"model": {}, "unsaved": {}}
    size = 0
    for stage, saved in enumerate(parts):
        for name, items in saved.files(version, stage):
            where[name.partition("-")[0]].update((item.key, name) for item in items)
            size += sum(item.nbytes for item in items)
    for kind, file in (("model", INDEX), ("unsaved", UNSAVED_INDEX)):
        if kind == "model" or where[kind]:
            found = {"metadata": {"total_size": size, "version": str(version)}, "weight_map": where[kind]}
            write_text(folder / file, json.dumps(found, indent=2) + "\n")
    forget_parts(folder, version)


def forget_parts(folder: Path, before: int | None = None, stage: int | str = "*") -> None:
    """Remove files of versions before one, or of all; of one stage, or of all."""
    for kind in ("model", "unsaved"):
        for file in folder.glob(f"{kind}-*-stage-{stage}-*.safetensors"):
            version = file.name.split("-")[1]
            if version.isdecimal() and (before is None or int(version) < before):
                file.unlink(missing_ok=True)


def _parted(items: Sequence[Item]) -> Iterator[tuple[Item, ...]]:
    part: list[Item] = []
    for item in items:
        if part and sum(one.nbytes for one in part) + item.nbytes > LARGEST:
            yield tuple(part)
            part = []
        part.append(item)
    if part:
        yield tuple(part)
